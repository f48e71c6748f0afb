"""Callbacks: optional features of a run, one file each (`etude.training.callback` has the protocol).

The order of the table is the order of calls: values of steps, reward shaping, length penalty, token advantages. Callbacks that only take
notes come before those that add groups; those that end a run before those that act on its last step.
"""

from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from etude.errors import UserError
from etude.renamed import OWNERS
from etude.tasks.functions import load_function

CALLBACKS = {
    "temperature_schedule": "etude.callbacks.temperature_schedule:TemperatureSchedule",
    "curriculum": "etude.callbacks.curriculum:CurriculumCallback",
    "vote_calibration": "etude.callbacks.vote_calibration:VoteCalibration",
    "step_model": "etude.callbacks.step_model:StepModelCallback",
    "rationalize": "etude.callbacks.rationalize:Rationalize",
    "synthetic_tasks": "etude.callbacks.synthetic_tasks:SyntheticTasks",
    "entropy_bonus": "etude.callbacks.entropy_bonus:EntropyBonus",
    "soundness_guard": "etude.callbacks.soundness_guard:SoundnessGuard",
    "reward_shaping": "etude.callbacks.reward_shaping:RewardShaping",
    "overlong_penalty": "etude.callbacks.overlong_penalty:OverlongPenalty",
    "down_sampling": "etude.callbacks.down_sampling:DownSampling",
    "implicit_reward": "etude.callbacks.implicit_reward:ImplicitRewardCallback",
    "kl_penalty": "etude.callbacks.kl_penalty:KLPenalty",
    "replay": "etude.callbacks.replay:ReplayCallback",
    "interpolation": "etude.callbacks.interpolation:Interpolation",
    "token_budget": "etude.callbacks.token_budget:TokenBudget",
    "collapse": "etude.callbacks.collapse:CollapseDetector",
    "gate": "etude.callbacks.gate:Gate",
    "divergence": "etude.callbacks.divergence:StartDivergence",
}
"""Name in settings → class."""


TAKEN = (
    *("optimizer", "adapters", "run", *OWNERS),
    *("recipe", "status", "seed", "weights", "evaluation", "paired", "retention", "retention_paired", "tasks", "feedback_counts"),
    "unscored",
)
"""Reserved names: other parts of checkpoints and of `result.json`."""


def callback_class(name: str, own: str | None = None) -> type[Any]:
    """Return the class of a callback of the table, or of a user's `own`, `FILE.py:CLASS` or `package.module:CLASS`. Raises UserError."""
    if own is None:
        module, class_name = CALLBACKS[name].split(":")
        return getattr(import_module(module), class_name)  # type: ignore[no-any-return]
    try:
        found = load_function(own, "class")
    except UserError as error:
        raise UserError(f"callbacks.{name}: {error}") from error
    _check_own(name, own, found)
    found.name = name  # type: ignore[attr-defined]
    return found  # type: ignore[return-value]


def _check_own(name: str, own: str, found: Any) -> None:
    if name in TAKEN:
        raise UserError(f"callbacks.{name}: the name {name} is taken in result.json or in checkpoints: give {own} another one")
    if not isinstance(found, type):
        raise UserError(f"callbacks.{name}: {own} must be a class that extends etude.Callback, got {getattr(found, '__name__', found)}")
    if not is_dataclass(getattr(found, "Settings", None)):
        raise UserError(f"callbacks.{name}: {own} has no settings: give it a frozen dataclass by the name Settings, which may be empty")


def settings_class(name: str, own: str | None = None) -> type[Any]:
    """Return the dataclass of a callback's settings."""
    return callback_class(name, own).Settings  # type: ignore[no-any-return]
