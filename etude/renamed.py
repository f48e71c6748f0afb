"""Names of before: settings, metrics and tensors of older runs, cells and files, as they are called now. Nothing else knows them."""

import re
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
    "agreement_min_share": "vote_calibration/min_vote_share",
    "vote_calibration/min_share": "vote_calibration/min_vote_share",
    "explore_seconds": "rollout_seconds",
    "part_outcome": "part_verifier",
    "part_agreement": "part_majority_vote",
    "part_form": "part_format",
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


def renamed_attempt(row: Mapping[str, Any]) -> Values:
    """Return a row of the attempts of a step under the names of now: it and its turns had a `credit`, its parts the rewards of before."""
    found = {"advantage" if name == "credit" else name: value for name, value in row.items()}
    if isinstance(found.get("parts"), dict):
        found["parts"] = {_REWARDS.get(name, name): value for name, value in found["parts"].items()}
    turns = found.get("turns")
    if isinstance(turns, list):
        found["turns"] = [renamed_attempt(turn) if isinstance(turn, dict) else turn for turn in turns]
    return found


def renamed_ledger_row(row: Mapping[str, Any]) -> Values:
    """Return an attempt of the ledger, whose reward was a `verdict` with the rewards of before as its parts, under the names of now."""
    if "verdict" not in row:
        return dict(row)
    verdict = dict(row["verdict"])
    parts = {_REWARDS.get(name, name): value for name, value in verdict.get("parts", {}).items()}
    return {"task": row["task"], "attempt": row["attempt"], "reward": verdict | {"parts": parts}}


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
"""Setting of before that a callback has now → setting, by dotted name."""
SECTIONS = {
    "learn.implicit_reward.": "callbacks.implicit_reward.",
    "explore.self_made.": "callbacks.synthetic_tasks.",
    "explore.curriculum.": "callbacks.curriculum.",
    "step_model.": "callbacks.step_model.",
    "retention.gate.": "callbacks.gate.",
    "retention.replay.": "callbacks.replay.",
    "collapse.": "callbacks.collapse.",
}
"""Beginnings of such settings → beginnings."""
PARTS = {
    "optimiser": "optimizer",
    "max_gradient_norm": "max_grad_norm",
    "explore.variants": "rollout.prompt_variants",
    "explore.stop_when_decided": "rollout.early_stop_groups",
    "explore": "rollout",
    "engine.view": "kv_cache.policy",
    "passing": "stream_per_layer",
    "ahead_pages": "prefetch_pages",
    "dense_layers": "full_attention_layers",
    "engine": "kv_cache",
    "feedback_weights.outcome": "reward_weights.verifier",
    "feedback_weights.agreement": "reward_weights.majority_vote",
    "feedback_weights.form": "reward_weights.format",
    "feedback_weights": "reward_weights",
    "feedback_optional": "reward_optional",
    "agreement.min_share": "majority_vote.min_vote_share",
    "agreement": "majority_vote",
    "judge_meanwhile": "async_verifiers",
    "key_variable": "api_key_env",
    "request": "extra_body",
    "learn.credit": "learn.advantage",
    "outcome_coefficient": "outcome_coef",
    "learn.aggregation": "learn.loss_agg_mode",
    "covariance.share": "covariance.ratio",
    "covariance.low": "covariance.clip_cov_lb",
    "covariance.high": "covariance.clip_cov_ub",
    "covariance.coefficient": "covariance.ppo_kl_coef",
    "updates_per_epoch": "minibatches_per_epoch",
    "rate_by_signal": "scale_lr_by_informative_groups",
    "preference.nll": "preference.rpo_alpha",
    "preference.margin": "preference.simpo_gamma",
    "preference.refresh_every": "preference.ref_model_sync_steps",
    "preferences.nll": "preferences.rpo_alpha",
    "preferences.margin": "preferences.simpo_gamma",
    "keep_all_right": "include_solved_groups",
    "learn.restart": "learn.reset_to_initial_each_step",
    "gate.max_loss": "gate.max_accuracy_drop",
    "gate.max_falls": "gate.max_rollbacks",
    "replay.imitate": "replay.nll_coef",
    "checkpoint_every": "save_steps",
    "keep_checkpoints": "save_total_limit",
    "machine.precision": "machine.dtype",
    "machine.decode_batch_tokens": "machine.kv_cache_tokens",
    "machine.update_batch_tokens": "machine.max_tokens_per_microbatch",
    "study.tasks_as": "study.task_format",
    "study.later_rate": "study.later_stage_lr_factor",
    "suite.near": "suite.near_domain",
    "suite.far": "suite.far_domain",
    "said_n": "generated_n",
}
"""Parts of dotted names, wherever they stand → parts."""
OPTIONS = {"explore": "search"}
"""Short options of before → short options."""
WHOLE = {"feedback": "reward"}
"""Settings whose name is a part of others too."""
_REWARDS = {"outcome": "verifier", "agreement": "majority_vote", "form": "format"}
VALUES: dict[str, Mapping[str, str]] = {
    "callbacks.collapse.action": {"fall_back": "rollback"},
    "callbacks.gate.action": {"roll_back": "rollback", "lower_rate": "lower_lr"},
    "reward": _REWARDS,
    "reward_optional": _REWARDS,
    "learn.method": {"credit": "policy_gradient"},
    "learn.advantage": {
        "standardised": "grpo",
        "centred": "dr_grpo",
        "leave_one_out": "rloo",
        "batch": "lite_ppo",
        "difference": "vineppo",
        "tree": "treerl",
    },
    "learn.loss": {"clipped": "ppo", "sequence": "gspo", "capped": "cispo"},
    "suite": dict.fromkeys(("knows-says", "knows_says"), "latent-knowledge"),
    "learn.loss_agg_mode": {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"},
}
"""Setting of now → its values of before → values."""
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


_A_PRACTICE_RUN = re.compile(r"(?:explore|rollout)\.tasks_per_step")
"""A setting that the settings of every practice run hold, wherever in others they stand."""
_PART = re.compile(r"(?<![^.])(?:" + "|".join(map(re.escape, sorted(PARTS, key=len, reverse=True))) + r")(?![^.])")


def renamed_settings(values: Mapping[str, Any]) -> Values:
    """Return all settings of a run, by dotted name, under the names of now; those that are up to date stay as they are.

    Settings of a practice run that stand in a section of others (`practice.`, `trained.`) are renamed within it.
    """
    found = dict(values)
    for prefix in [_A_PRACTICE_RUN.sub("", name) for name in values if _A_PRACTICE_RUN.search(name)]:
        own = {name.removeprefix(prefix): found.pop(name) for name in list(found) if name.startswith(prefix)}
        found |= {prefix + name: value for name, value in _of_practice(own).items()}
    renamed: Values = {}
    for name, value in found.items():
        renamed |= _renamed(name, value)
    return renamed


def renamed_value(name: str, value: Any) -> Any:
    """Return what a value of a setting, by its name of now, is called now."""
    if isinstance(value, list):
        return [renamed_value(name, each) for each in value]
    known = next((values for setting, values in VALUES.items() if f".{name}".endswith(f".{setting}")), {})
    return known.get(value, value) if isinstance(value, str) else value


def renamed_setting(name: str) -> str | None:
    """Return what a setting of before is called now; None for one that is no setting of before."""
    now = _with_new_parts(WHOLE.get(name) or _of_a_callback(name) or name)
    return None if now == name else now


def _with_new_parts(name: str) -> str:
    return _PART.sub(lambda part: PARTS[part[0]], name)


def _of_a_callback(name: str) -> str | None:
    """Return what a setting of before is called now that a callback has it."""
    if name in SETTINGS:
        return SETTINGS[name]
    beginning = next((start for start in SECTIONS if name.startswith(start)), None)
    return None if beginning is None else SECTIONS[beginning] + name.removeprefix(beginning)


def _of_practice(old: Mapping[str, Any]) -> Values:
    """Return the settings of a practice run with those that callbacks have now, and without those of callbacks that were off."""
    found: Values = {}
    for name, value in old.items():
        new = _of_a_callback(name)
        if new is None:
            found[WHOLE.get(name, name)] = value  # here too, since `WHOLE` is of a name without its section
        elif IS_ON[new.split(".")[1]](old) and new.count(".") > 1:
            found[new] = value
    if "learn.anchor" in old and IS_ON["collapse"](old):  # a run of before callbacks were listed
        found.setdefault("callbacks.collapse.action", "warn")
    return found


def _renamed(name: str, value: Any) -> Values:
    """Return a setting under its name and with its value of now: an optimizer's `decay_steps` were 0 for a rate that stayed."""
    now = _with_new_parts(WHOLE.get(name, name))
    section, _, last = now.rpartition(".")
    if now != name and last == "decay_steps":
        is_falling = bool(value) or section.endswith("study.optimizer")
        return {now: value or None, f"{section}.lr_scheduler": "linear" if is_falling else "constant"}
    return {now: renamed_value(now, value)}


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


REMOVED = {"rollout.reuse": False}
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
