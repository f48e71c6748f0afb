"""Names of before: settings, metrics and tensors of older runs, cells and files, as they are called now. Nothing else knows them."""

from collections.abc import Callable, Mapping
from typing import Any

Values = dict[str, Any]

METRICS = {
    "implicit_reward_auc_within": "implicit_reward/auc_within_task",
    "implicit_reward_loss": "implicit_reward/loss",
    "step_model_brier": "step_model/brier",
    "step_model_brier_of_mean": "step_model/brier_of_mean",
    "step_model_auc": "step_model/auc",
    "step_model_auc_within": "step_model/auc_within_task",
    "step_model_trust": "step_model/trust",
    "step_model_loss": "step_model/loss",
    "entropy_bonus": "entropy_bonus/coef",
    "penalised": "overlong_penalty/penalised",
    "length_penalty": "overlong_penalty/penalty",
    "masked": "overlong_penalty/masked",
    "replay_tokens": "replay/tokens",
    "hinted": "rationalize/attempts",
    "hinted_right": "rationalize/right",
    "agreement_min_share": "vote_calibration/min_share",
    "made": "synthetic_tasks/written",
    "made_valid": "synthetic_tasks/valid",
    "made_rewarded": "synthetic_tasks/rewarded",
    "made_reward": "synthetic_tasks/writing_reward",
    "made_score": "synthetic_tasks/reward",
    "level": "curriculum/level",
    "failing": "curriculum/failing",
    "old_choice_accuracy": "gate/choice_accuracy",
    "old_perplexity": "gate/perplexity",
    "forward_kl": "gate/forward_kl",
    "gate_passed": "gate/passed",
    "gate_held": "gate/held",
}
"""Metric of before → metric."""
METRIC_BEGINNINGS = {"made_": "synthetic_tasks/", "pool_": "curriculum/pool_", "failing_": "curriculum/failing_"}


def renamed_metrics(row: Mapping[str, Any]) -> Values:
    """Return a row of metrics under the names of now."""
    return {_metric(name): value for name, value in row.items()}


def _metric(name: str) -> str:
    if name in METRICS:
        return METRICS[name]
    beginning = next((start for start in METRIC_BEGINNINGS if name.startswith(start)), None)
    return name if beginning is None else METRIC_BEGINNINGS[beginning] + name.removeprefix(beginning)


SETTINGS = {
    "learn.shaping": "callbacks.reward_shaping.method",
    "learn.shaping_weight": "callbacks.reward_shaping.weight",
    "learn.anchor": "callbacks.kl_penalty.kl_coef",
    "learn.entropy.bonus": "callbacks.entropy_bonus.entropy_coef",
    "learn.entropy.target": "callbacks.entropy_bonus.target",
    "learn.entropy.delta": "callbacks.entropy_bonus.delta",
    "learn.length.buffer_tokens": "callbacks.overlong_penalty.buffer_tokens",
    "learn.length.penalty": "callbacks.overlong_penalty.penalty_weight",
    "learn.length.mask_truncated": "callbacks.overlong_penalty.mask_truncated_completions",
    "learn.implicit_reward.coefficient": "callbacks.implicit_reward.coef",
    "explore.temperature_end": "callbacks.temperature_schedule.end",
    "explore.hint": "callbacks.rationalize.hint",
    "explore.rationalise": "callbacks.rationalize",
    "step_model.on": "callbacks.step_model",
    "budget_tokens": "callbacks.token_budget.tokens",
    "retention.divergence_n": "callbacks.divergence.n",
    "retention.replay.anchor": "callbacks.replay.kl_coef",
    "agreement.probe_n": "callbacks.vote_calibration.n",
    "agreement.probe_every": "callbacks.vote_calibration.every",
    "agreement.probe_accuracy": "callbacks.vote_calibration.target_precision",
}
"""Setting of before → setting, by dotted name."""
SECTIONS = {
    "learn.implicit_reward.": "callbacks.implicit_reward.",
    "explore.self_made.": "callbacks.synthetic_tasks.",
    "explore.curriculum.": "callbacks.curriculum.",
    "step_model.": "callbacks.step_model.",
    "retention.gate.": "callbacks.gate.",
    "retention.replay.": "callbacks.replay.",
    "collapse.": "callbacks.collapse.",
}
"""Beginnings of settings of before → beginnings."""
VALUES = {("callbacks.collapse.action", "fall_back"): "rollback", ("callbacks.gate.action", "roll_back"): "rollback"}
"""Values of before, by the setting of now → values."""
IS_ON: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "reward_shaping": lambda old: old.get("learn.shaping", "none") != "none",
    "kl_penalty": lambda old: bool(old.get("learn.anchor")),
    "entropy_bonus": lambda old: bool(old.get("learn.entropy.bonus")) or old.get("learn.entropy.target") is not None,
    "overlong_penalty": lambda old: bool(old.get("learn.length.buffer_tokens") or old.get("learn.length.mask_truncated")),
    "implicit_reward": lambda old: bool(old.get("learn.implicit_reward.coefficient")),
    "temperature_schedule": lambda old: old.get("explore.temperature_end") is not None,
    "rationalize": lambda old: bool(old.get("explore.rationalise")),
    "step_model": lambda old: bool(old.get("step_model.on")),
    "token_budget": lambda old: old.get("budget_tokens") is not None,
    "divergence": lambda old: bool(old.get("retention.divergence_n")),
    "gate": lambda old: bool(old.get("retention.gate.every")),
    "replay": lambda old: bool(old.get("retention.replay.ratio")),
    "vote_calibration": lambda old: bool(old.get("agreement.probe_n")),
    "synthetic_tasks": lambda old: old.get("explore.self_made.method", "none") != "none",
    "curriculum": lambda old: old.get("explore.curriculum.method", "none") != "none",
    "collapse": lambda old: old.get("collapse.action", "warn") != "off",
}
"""Whether settings of before had what is a callback now: those of one that is off are no settings any more."""


_A_PRACTICE_RUN = "explore.tasks_per_step"
"""A setting that the settings of every practice run hold, wherever in others they stand."""


def renamed_settings(values: Mapping[str, Any]) -> Values:
    """Return all settings of a run, by dotted name, under the names of now; those that are up to date stay as they are.

    Settings of a practice run that stand in a section of others (`practice.`, `trained.`) are renamed within it.
    """
    found = dict(values)
    for prefix in [name.removesuffix(_A_PRACTICE_RUN) for name in values if name.endswith(_A_PRACTICE_RUN)]:
        own = {name.removeprefix(prefix): found.pop(name) for name in list(found) if name.startswith(prefix)}
        found |= {prefix + name: value for name, value in _renamed(own).items()}
    return found


def renamed_value(name: str, value: Any) -> Any:
    """Return what a value of a setting, by its name of now, is called now."""
    return VALUES.get((name, value), value) if isinstance(value, str) else value


def renamed_setting(name: str) -> str | None:
    """Return what a setting of before is called now; None for one that is no setting of before."""
    if name in SETTINGS:
        return SETTINGS[name]
    beginning = next((start for start in SECTIONS if name.startswith(start)), None)
    return None if beginning is None else SECTIONS[beginning] + name.removeprefix(beginning)


def _renamed(old: Mapping[str, Any]) -> Values:
    """Return the settings of a practice run under the names of now."""
    if not any(renamed_setting(name) for name in old):
        return dict(old)
    found: Values = {}
    for name, value in old.items():
        new = renamed_setting(name)
        if new is None:
            found[name] = value
        elif IS_ON[new.split(".")[1]](old) and new.count(".") > 1:
            found[new] = renamed_value(new, value)
    if IS_ON["collapse"](old):
        found.setdefault("callbacks.collapse.action", "warn")
    return found


def with_defaults(kept: Mapping[str, Any], defaults: Mapping[str, Any]) -> Values:
    """Return kept settings, by dotted name, under the names of now, with the `defaults` of settings that are younger than they are.

    A callback that they do not list has no settings.
    """
    found = renamed_settings(kept)
    listed = {name.rpartition("callbacks.")[2].split(".")[0] for name in found if "callbacks." in name}
    younger = {name: value for name, value in defaults.items() if name not in found}
    return found | {
        name: value
        for name, value in younger.items()
        if "callbacks." not in name or name.rpartition("callbacks.")[2].split(".")[0] in listed
    }


REMOVED = {"explore.reuse": False}
"""Settings that are no more, with the value at which an older run did what a run does today."""
UNREAD = ("suite.machine.", "known.divergence_n", "known.gate.", "known.replay.")
"""Beginnings of settings that older runs hold, and that nothing read."""


def is_removed(name: str, value: Any) -> bool:
    """Tell whether a setting is no more and made no difference at this value, in a run or in one that it begins with."""
    made_none = any(f".{name}".endswith(f".{removed}") and value == default for removed, default in REMOVED.items())
    return made_none or any(f".{beginning}" in f".{name}" for beginning in UNREAD)


OWNERS = {
    "o": "optimizer",
    "a": "adapters",
    "s": "step_model",
    "i": "implicit_reward",
    "e": "entropy_bonus",
    "c": "curriculum",
    "g": "gate",
    "w": "collapse",
}
"""Letters of before for the owners of a checkpoint's tensors → names."""


def renamed_tensor(name: str) -> tuple[str, str]:
    """Return the owner of a checkpoint's tensor and its name there; the step that is held is the run's."""
    owner, _, key = name.partition(".")
    return ("run" if key == "held" and owner in ("g", "w") else OWNERS.get(owner, owner)), key
