"""The callback: one optional feature of a run, one class in one file (`etude.callbacks` has the table).

The loop of practice (`etude.recipes.practice`) calls the hooks below and knows no callback by name. A callback has its own settings,
checks, state, metrics (`NAME/metric`), charts and one sentence for the end. It reads and writes only the arguments of its hooks and the run
(`etude.training.practice_run`). Callbacks share named slots of the run and never access each other.

    once        check, prepare, start, after_practice, finish
    every step  select_tasks, before_rollout, after_rollout, before_update, on_examples, extra_examples, after_update, decide
    resume      state_dict, load_state_dict

Rules. Steps count from 1. Random numbers come from `etude.randomness.seed_for(run.seed, NAME, step, ...)`. Random and external decisions of
a rollout go into `batch.notes[NAME]`: a resumed run reads the step from the ledger and skips `before_rollout` and `after_rollout`. A
callback that is not listed changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.rollouts.batch import RolloutBatch
from etude.settings.unused import Read
from etude.settings.yaml_text import as_yaml

if TYPE_CHECKING:
    import torch

    from etude.learn.example import Example
    from etude.tasks.sources import TaskSource
    from etude.tasks.task import Task
    from etude.training.practice_run import PracticeRun

Metrics = dict[str, Any]
"""Metrics of a step, by full name."""


@dataclass(frozen=True)
class Decision:
    """A callback's decision after a step."""

    stop: bool = False
    """End practice after this step."""
    rollback: bool = False
    """Restore the held checkpoint."""
    hold: bool | None = None
    """True: hold the current model; False: do not hold it; None: the callback did not check."""


CONTINUE = Decision()


def joined(decisions: Sequence[Decision]) -> Decision:
    """Merge decisions: stop or roll back if any asks for it; hold if all that checked agree and none rolls back."""
    rollback = any(decision.rollback for decision in decisions)
    votes = [decision.hold for decision in decisions if decision.hold is not None]
    return Decision(any(decision.stop for decision in decisions), rollback, bool(votes) and all(votes) and not rollback)


@dataclass(frozen=True)
class Excludes:
    """Values of another setting that exclude a callback."""

    setting: str
    """Its dotted name; that of another callback's begins with `callbacks.NAME`, which alone is the callback itself."""
    instead: str
    """How to fix that setting: `set it to grpo`, `leave it out`."""
    because: str
    """The reason, as the rest of a sentence that begins with the callback's name."""
    values: tuple[Any, ...] = ()
    """The excluded values; empty: every value except the `allowed` ones."""
    allowed: tuple[Any, ...] = (None, False, 0, "", [])

    def is_met(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the settings, by dotted name, have an excluded value."""
        value = settings.get(self.setting)
        if self.values:
            return value in self.values
        if self.setting.startswith("callbacks."):
            return any(name.startswith(f"{self.setting}.") or name == self.setting for name in settings)
        return value not in self.allowed


class Callback:
    """Base class of callbacks: hooks that do nothing."""

    name: ClassVar[str]
    """Its name in settings (`--NAME.field`), metrics (`NAME/metric`), checkpoints and `result.json`."""
    Settings: ClassVar[type[Any]]
    """A frozen dataclass next to the callback; it checks its own values and needs no torch."""
    panels: ClassVar[tuple[Panel, ...]] = ()
    """Charts of its metrics in the report."""
    excludes: ClassVar[tuple[Excludes, ...]] = ()
    """Incompatible settings."""
    reads: ClassVar[tuple[Read, ...]] = ()
    """Own settings that it reads only if another setting, own or by dotted name, has some value; otherwise the run calls them unused."""
    rolls_back: ClassVar[bool] = True
    """Whether a rollback restores its state; False for callbacks that decide, whose counters survive."""
    unit_rewards: ClassVar[str] = ""
    """Why it needs rewards in [0, 1]; empty: any finite number will do."""

    def __init__(self, settings: Any = None) -> None:
        """Take the settings; without them those of the defaults, if the class has settings."""
        self.settings = self.Settings() if settings is None and hasattr(self, "Settings") else settings

    @property
    def every(self) -> int:
        """Steps between two decisions that cost time, for estimates."""
        return 1

    more_attempts: ClassVar[int] = 0
    """Additional attempts that it may sample, as a multiple of the step's own, for estimates."""

    @property
    def saved_bytes(self) -> int:
        """Bytes saved in addition to the final model, for estimates."""
        return 0

    @property
    def can_roll_back(self) -> bool:
        """Whether it may ask for a rollback; if so, the model at the start of practice is held."""
        return False

    @property
    def num_reserved_tasks(self) -> int:
        """Number of training tasks that it reserves for itself."""
        return 0

    # once

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise UserError for incompatible settings, given by dotted name; nothing is loaded yet. Extends `excludes`."""

    def load_tasks(self, source: "TaskSource", size: int | None, seed: int) -> "list[Task] | None":
        """Return the training tasks, or None to use the source; the first callback that returns tasks decides."""
        return None

    def prepare(self, run: "PracticeRun") -> None:
        """Load files, take tasks or add demonstrations (`run.data`); the run folder does not exist yet. Raises UserError."""

    def start(self, run: "PracticeRun") -> None:
        """Begin practice; model, learner, sampler and reward of this stage exist."""

    def after_practice(self) -> None:
        """Change the model after its last step, before it is measured and saved; a resumed run that has no step left does it again."""

    def finish(self) -> dict[str, Any] | None:
        """Return its entry in `result.json`, after the last step."""
        return None

    def sentence(self, found: Mapping[str, Any]) -> str:
        """Describe the result of `finish` in one sentence for the console; empty: print nothing."""
        return ""

    def save(self, run: "PracticeRun") -> None:
        """Write files beside the final model."""

    # every step

    def select_tasks(self, step: int, number: int) -> list[int] | None:
        """Return the indices of the step's tasks, or None; the first callback that answers decides, otherwise tasks come in epochs."""
        return None

    def before_rollout(self, step: int) -> None:
        """Change how the step is sampled; not called if the ledger holds the step."""

    def after_rollout(self, batch: RolloutBatch) -> None:
        """Change or add groups, and note decisions; not called if the ledger holds the step."""

    def before_update(self, batch: RolloutBatch) -> Metrics:
        """Change `batch.shaped_rewards`, `batch.token_advantages` or `batch.masked`, or configure the learner; always called."""
        return {}

    def on_examples(self, batch: RolloutBatch, examples: "list[list[Example]]") -> "list[list[Example]]":
        """Return a step's examples, by group, with streams added."""
        return examples

    def extra_examples(self, step: int, own_tokens: int) -> "list[Example]":
        """Return additional examples for an update whose attempts have `own_tokens` tokens."""
        return []

    def after_update(self, batch: RolloutBatch) -> Metrics:
        """Train other models on the step; the policy is updated, the engine's copy is not yet."""
        return {}

    def decide(self, step: int, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, is_last: bool) -> tuple[Decision, Metrics]:
        """Decide how to continue after a step; its metrics `row` are not in `history` yet. The decision is applied after logging."""
        return CONTINUE, {}

    def on_rollback(self) -> None:
        """React to a rollback: the model is the held one again."""

    # resume

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """Return all state that a resumed run cannot recompute."""
        return {}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Restore the state from `state_dict`."""


def check_callbacks(callbacks: Sequence[Callback], settings: Mapping[str, Any]) -> None:
    """Raise UserError if a callback is incompatible with the settings, given by dotted name."""
    for callback in callbacks:
        for rule in callback.excludes:
            if rule.is_met(settings):
                shown = rule.setting.removeprefix("callbacks.")
                value = f" {as_yaml(settings[rule.setting])}" if rule.setting in settings else ""
                raise UserError(f"{callback.name} {rule.because}, and {shown}{value} is set: {rule.instead}, or leave {callback.name} out")
        callback.check(settings)
