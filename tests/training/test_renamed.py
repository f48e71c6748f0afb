"""Names of before are read as those of now: settings, metrics, and whole run folders."""

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from safetensors.torch import load_file, save_file

from etude.callbacks import CALLBACKS
from etude.callbacks.gate import GateSettings
from etude.errors import UserError
from etude.evaluation.report import write_report
from etude.evaluation.report.run_folder import read_run
from etude.fingerprints import checksums_of
from etude.learn.advantages import ADVANTAGES
from etude.learn.loss_settings import POLICY_LOSS_NAMES
from etude.learn.losses.tokens import LossAggMode
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import METHODS
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.practice import Loop
from etude.renamed import (
    IS_ON,
    METRICS,
    PARTS,
    SECTIONS,
    SETTINGS,
    VALUES,
    WHOLE,
    renamed_metrics,
    renamed_setting,
    renamed_settings,
    renamed_tensor,
    with_defaults,
)
from etude.rollouts.collapse import CollapseSettings
from etude.settings.configuration import flatten, settings_of
from etude.suites.table import SUITES
from etude.training.parse import practice_defaults
from etude.training.settings import OTHER_REWARDS, REWARDS, PracticeSettings

OFF = {
    "budget_tokens": None,
    "explore.temperature_end": None,
    "explore.reuse": False,
    "explore.rationalise": False,
    "explore.hint": "The answer is {answer}.",
    "explore.curriculum.method": "none",
    "explore.curriculum.memory": 64,
    "explore.self_made.method": "none",
    "explore.self_made.window.low": 0.125,
    "agreement.probe_n": 0,
    "agreement.probe_every": 10,
    "agreement.probe_accuracy": 0.5,
    "learn.shaping": "none",
    "learn.shaping_weight": 0.25,
    "learn.anchor": 0.0,
    "learn.entropy.bonus": 0.0,
    "learn.entropy.target": None,
    "learn.entropy.delta": 0.005,
    "learn.length.buffer_tokens": 0,
    "learn.length.penalty": 1.0,
    "learn.length.mask_truncated": False,
    "learn.implicit_reward.coefficient": 0.0,
    "learn.implicit_reward.beta": 0.05,
    "learn.implicit_reward.optimiser.learning_rate": 1e-5,
    "step_model.on": False,
    "step_model.hidden": 0,
    "retention.divergence_n": 0,
    "retention.gate.every": 0,
    "retention.gate.max_loss": 0.02,
    "retention.replay.path": [],
    "retention.replay.ratio": 0.0,
    "retention.replay.anchor": 0.0,
    "collapse.action": "off",
    "collapse.window": 5,
}
"""What the settings of a run of before held of features that were off."""
NAMED_ANEW = {"explore.tasks_per_step": 6, "agreement.min_share": 0.3, "learn.loss": "clipped", "retention.probe": False, "steps": 4}
"""Settings of before that every run has."""
STAY = {"rollout.tasks_per_step": 6, "majority_vote.min_vote_share": 0.3, "learn.loss": "ppo", "retention.probe": False, "steps": 4}
"""The same under their names of today."""


def test_a_row_of_metrics_gets_the_names_of_now():
    before = {
        "step": 3,
        "score": 0.5,
        "replay_nats": 1.5,
        "anchor_loss": 0.2,
        "implicit_reward_auc_within": 0.6,
        "step_model_auc_within": 0.7,
        "entropy_bonus": 0.01,
        "penalised": 0.25,
        "length_penalty": 0.125,
        "masked": 0.0,
        "replay_tokens": 40,
        "hinted": 8,
        "hinted_right": 2,
        "agreement_min_share": 0.75,
        "agreement_abstained": 4,
        "part_outcome": 0.5,
        "explore_seconds": 2.5,
        "made": 16,
        "made_valid": 9,
        "made_reward": 0.5,
        "made_score": 0.4,
        "made_copy": 3,
        "level": 2,
        "failing": 0.3,
        "failing_algebra": 0.1,
        "pool_hard": 0.2,
        "old_choice_accuracy": 0.8,
        "old_perplexity": 4.5,
        "forward_kl": 0.3,
        "gate_passed": 1,
        "gate_held": 2,
    }
    now = {
        "step": 3,
        "score": 0.5,
        "replay_nats": 1.5,
        "anchor_loss": 0.2,
        "implicit_reward/auc_within_task": 0.6,
        "step_model/auc_within_task": 0.7,
        "entropy_bonus/coef": 0.01,
        "overlong_penalty/penalised": 0.25,
        "overlong_penalty/penalty": 0.125,
        "overlong_penalty/masked": 0.0,
        "replay/tokens": 40,
        "rationalize/attempts": 8,
        "rationalize/right": 2,
        "vote_calibration/min_vote_share": 0.75,
        "agreement_abstained": 4,
        "part_verifier": 0.5,
        "rollout_seconds": 2.5,
        "synthetic_tasks/written": 16,
        "synthetic_tasks/valid": 9,
        "synthetic_tasks/writing_reward": 0.5,
        "synthetic_tasks/reward": 0.4,
        "synthetic_tasks/copy": 3,
        "curriculum/level": 2,
        "curriculum/failing": 0.3,
        "curriculum/failing_algebra": 0.1,
        "curriculum/pool_hard": 0.2,
        "gate/choice_accuracy": 0.8,
        "gate/perplexity": 4.5,
        "gate/forward_kl": 0.3,
        "gate/passed": 1,
        "gate/held": 2,
    }
    assert renamed_metrics(before) == now
    assert list(renamed_metrics(before)) == list(now), "in the order of before"
    assert renamed_metrics(now) == now


ON: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "reward_shaping": (
        {"learn.shaping": "novelty", "learn.shaping_weight": 0.5},
        {"method": "novelty", "weight": 0.5},
    ),
    "kl_penalty": ({"learn.anchor": 0.1}, {"kl_coef": 0.1}),
    "entropy_bonus": ({"learn.entropy.target": 0.2}, {"entropy_coef": 0.0, "target": 0.2, "delta": 0.005}),
    "overlong_penalty": (
        {"learn.length.mask_truncated": True},
        {"buffer_tokens": 0, "penalty_weight": 1.0, "mask_truncated_completions": True},
    ),
    "implicit_reward": (
        {"learn.implicit_reward.coefficient": 2.0},
        {"coef": 2.0, "beta": 0.05, "optimizer.learning_rate": 1e-5},
    ),
    "temperature_schedule": ({"explore.temperature_end": 1.3}, {"end": 1.3}),
    "rationalize": ({"explore.rationalise": True}, {"hint": "The answer is {answer}."}),
    "step_model": ({"step_model.on": True, "step_model.hidden": 8}, {"hidden": 8}),
    "token_budget": ({"budget_tokens": 1000}, {"tokens": 1000}),
    "divergence": ({"retention.divergence_n": 20}, {"n": 20}),
    "gate": ({"retention.gate.every": 5}, {"every": 5, "max_accuracy_drop": 0.02}),
    "replay": (
        {"retention.replay.path": ["old.txt"], "retention.replay.ratio": 0.5},
        {"path": ["old.txt"], "ratio": 0.5, "kl_coef": 0.0},
    ),
    "vote_calibration": (
        {"agreement.probe_n": 20, "agreement.probe_accuracy": 0.7},
        {"n": 20, "every": 10, "target_precision": 0.7},
    ),
    "synthetic_tasks": (
        {"explore.self_made.method": "svs", "explore.self_made.window.low": 0.25},
        {"method": "svs", "window.low": 0.25},
    ),
    "curriculum": ({"explore.curriculum.method": "weakness"}, {"method": "weakness", "memory": 64}),
    "collapse": ({"collapse.action": "fall_back", "collapse.window": 3}, {"action": "rollback", "window": 3}),
}
"""What is a callback now → settings of before that had it on, and its settings now."""


def callbacks(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {f"callbacks.{name}.{key}": value for key, value in settings.items()}


def test_every_callback_that_was_a_setting_is_tried():
    assert set(ON) == set(IS_ON) == set(CALLBACKS) - {"soundness_guard", "down_sampling", "interpolation"}  # which never were settings


@pytest.mark.parametrize("name", ON)
def test_a_feature_that_was_on_is_a_callback_and_those_that_were_off_vanish(name):
    before, now = ON[name]
    assert renamed_settings(OFF | NAMED_ANEW | before) == {"rollout.reuse": False} | STAY | callbacks(name, now)


def test_all_features_of_a_run_become_callbacks_at_once():
    before = {key: value for on, _ in ON.values() for key, value in on.items()}
    now = {key: value for name, (_, own) in ON.items() for key, value in callbacks(name, own).items()}
    found = renamed_settings(OFF | NAMED_ANEW | before)
    assert found == {"rollout.reuse": False} | STAY | now
    assert renamed_settings(found) == found, "settings that are up to date stay as they are"


def test_a_run_that_had_no_setting_for_a_collapse_was_warned_of_one():
    old = {name: value for name, value in (OFF | NAMED_ANEW).items() if not name.startswith("collapse.")}
    assert renamed_settings(old) == {"rollout.reuse": False} | STAY | {"callbacks.collapse.action": "warn"}
    assert renamed_settings(STAY) == STAY, "settings of now without callbacks have none"


def test_settings_of_practice_are_renamed_within_those_of_others():
    before = {f"trained.{name}": value for name, value in (OFF | NAMED_ANEW | {"retention.gate.every": 5}).items()} | {
        "retention.gate": "own"
    }
    now = {f"trained.{name}": value for name, value in ({"rollout.reuse": False} | STAY).items()} | {"retention.gate": "own"}
    assert renamed_settings(before) == now | {"trained.callbacks.gate.every": 5, "trained.callbacks.gate.max_accuracy_drop": 0.02}


def test_settings_that_are_no_practice_run_stay():
    adapted = {"step_model.on": True, "study.tokens": 300, "retention.gate.every": 3}
    assert renamed_settings(adapted) == adapted


def test_every_name_of_now_is_a_setting():
    known = {name for kind in (PracticeSettings, AdaptSettings) for name in settings_of(kind)}
    new = [renamed_setting(name) or name for name in SETTINGS]
    assert [name for name in new if name not in known] == []
    assert [start for start in SECTIONS.values() if not any(name.startswith(start) for name in known)] == []
    assert [
        part for part in PARTS.values() if not part.startswith("reward_weights.") and not any(f".{part}." in f".{name}." for name in known)
    ] == []
    assert [name for name in VALUES if name not in known | {"suite"}] == []
    assert [old for old in (*SETTINGS, *SECTIONS, *WHOLE) if old in known] == [], "no setting of now has a name of before"
    assert [old for old in PARTS if any(f".{old}." in f".{name}." for name in known)] == []
    assert all(name.split("/")[0] in CALLBACKS for name in METRICS.values() if "/" in name)


def test_every_value_of_before_is_another_value_of_now():
    choices = {
        "learn.method": METHODS,
        "learn.loss": POLICY_LOSS_NAMES,
        "learn.advantage": (*ADVANTAGES, *STEP_ADVANTAGES),
        "learn.loss_agg_mode": get_args(LossAggMode),
        "reward": (*REWARDS, *OTHER_REWARDS),
        "reward_optional": REWARDS,
        "suite": SUITES,
        "callbacks.gate.action": get_args(get_type_hints(GateSettings)["action"]),
        "callbacks.collapse.action": get_args(get_type_hints(CollapseSettings)["action"]),
    }
    assert choices.keys() == VALUES.keys()
    for setting, values in VALUES.items():
        assert set(values.values()) <= set(choices[setting]) and not set(values) & set(choices[setting]), setting


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"learn.optimiser.decay_steps": 114}, {"learn.optimizer.decay_steps": 114, "learn.optimizer.lr_scheduler": "linear"}),
        ({"learn.optimiser.decay_steps": 0}, {"learn.optimizer.decay_steps": None, "learn.optimizer.lr_scheduler": "constant"}),
        ({"study.optimiser.decay_steps": 0}, {"study.optimizer.decay_steps": None, "study.optimizer.lr_scheduler": "linear"}),
        ({"learn.optimizer.decay_steps": 9}, {"learn.optimizer.decay_steps": 9}),
        ({"feedback_weights.outcome": 1.0}, {"reward_weights.verifier": 1.0}),
        ({"feedback_optional": ["agreement"]}, {"reward_optional": ["majority_vote"]}),
        ({"learn.credit": "tree", "explore.search.method": "tree"}, {"learn.advantage": "treerl", "rollout.search.method": "tree"}),
        ({"policies.arkvale 0.1.dense_layers": 2}, {"policies.arkvale 0.1.full_attention_layers": 2}),
        ({"policies.passing 0.25.passing": True}, {"policies.passing 0.25.stream_per_layer": True}),
    ],
)
def test_settings_and_values_have_their_names_of_now(before, now):
    assert renamed_settings(before) == now and renamed_settings(now) == now


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("learn.implicit_reward.coefficient", "callbacks.implicit_reward.coef"),
        ("learn.implicit_reward.optimiser.learning_rate", "callbacks.implicit_reward.optimizer.learning_rate"),
        ("retention.replay.anchor", "callbacks.replay.kl_coef"),
        ("retention.replay.ratio", "callbacks.replay.ratio"),
        ("step_model.on", "callbacks.step_model"),
        ("retention.probe", None),
        ("learn.loss", None),
        ("feedback", "reward"),
        ("rollout.refine.feedback", None),
        ("explore.refine.feedback", "rollout.refine.feedback"),
        ("explore.search.method", "rollout.search.method"),
        ("learn.optimiser.max_gradient_norm", "learn.optimizer.max_grad_norm"),
        ("callbacks.gate.max_falls", "callbacks.gate.max_rollbacks"),
    ],
)
def test_one_setting_has_its_name_of_now(old, new):
    assert renamed_setting(old) == new


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("o.updates", ("optimizer", "updates")),
        ("i.m.model.norm.weight", ("implicit_reward", "m.model.norm.weight")),
        ("c.level", ("curriculum", "level")),
        ("g.falls", ("gate", "falls")),
        ("g.held", ("run", "held")),
        ("w.held", ("run", "held")),
        ("gate.falls", ("gate", "falls")),
        ("run.held", ("run", "held")),
    ],
)
def test_tensors_of_a_checkpoint_of_before_have_the_owner_of_now(old, new):
    assert renamed_tensor(old) == new


def test_settings_that_are_younger_than_a_run_have_their_defaults_those_of_listed_callbacks_alone():
    defaults = practice_defaults()
    found = with_defaults(OFF | NAMED_ANEW | {"retention.gate.every": 5}, defaults)
    assert (
        found["callbacks.gate.max_rollbacks"] == defaults["callbacks.gate.max_rollbacks"]
        and found["callbacks.gate.max_accuracy_drop"] == 0.02
    )
    assert found["evaluation.own"] is True and found["steps"] == 4
    assert {name.split(".")[1] for name in found if name.startswith("callbacks.")} == {"gate"}


LETTERS = {
    "optimizer": "o",
    "step_model": "s",
    "implicit_reward": "i",
    "entropy_bonus": "e",
    "curriculum": "c",
    "gate": "g",
    "collapse": "w",
}
COLLAPSE = {"collapse.action": "warn", "collapse.window": 5, "collapse.constant": 0.5, "collapse.rise": 0.2, "collapse.fall": 0.25}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "learning": (
        {
            "gate.every": 2,
            "gate.max_divergence": 1e-6,
            "implicit_reward.coef": 1.0,
            "entropy_bonus.target": 3.0,
            "curriculum.method": "weakness",
            "kl_penalty.kl_coef": 0.1,
            "overlong_penalty.buffer_tokens": 2,
            "temperature_schedule.end": 1.3,
            "divergence.n": 3,
        },
        {
            "retention.gate.every": 2,
            "retention.gate.max_divergence": 1e-6,
            "learn.implicit_reward.coefficient": 1.0,
            "learn.entropy.target": 3.0,
            "explore.curriculum.method": "weakness",
            "learn.anchor": 0.1,
            "learn.length.buffer_tokens": 2,
            "explore.temperature_end": 1.3,
            "retention.divergence_n": 3,
        },
    ),
    "alone": (
        {
            "reward": "majority_vote",
            "vote_calibration.n": 6,
            "vote_calibration.every": 2,
            "collapse.action": "rollback",
            "collapse.window": 2,
        },
        {"agreement.probe_n": 6, "agreement.probe_every": 2, "collapse.action": "fall_back", "collapse.window": 2},
    ),
}
"""Overrides of now → what else the configuration of before held."""


def of_before(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of now, by dotted name, as a run of before had them."""
    parts = {new: old for old, new in (PARTS | WHOLE).items()}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name.endswith(".lr_scheduler") or name.startswith("callback"):
            continue
        values = {new: old for old, new in VALUES.get(name, {}).items()}
        old = values.get(value, value) if isinstance(value, str) else value
        for new in sorted(parts, key=len, reverse=True):
            if (f".{new}." in f".{name}." and new != "reward") or name == new:
                name = f".{name}.".replace(f".{new}.", f".{parts[new]}.", 1)[1:-1]
        found[name] = (old or 0) if name.endswith(".decay_steps") else old
    return found


def as_before(folder: Path, own: dict[str, Any]) -> None:
    """Write a run's folder as it was before: settings, metrics, owners of tensors, and a ledger of verdicts without notes."""
    kept = of_before(flatten(yaml.safe_load((folder / "configuration.yaml").read_text())))
    assert {"explore.tasks_per_step", "feedback", "learn.credit", "learn.optimiser.decay_steps", "engine.view"} <= set(kept)
    assert kept["learn.loss"] == "clipped" and kept["learn.aggregation"] == "constant" and kept["checkpoint_every"] == 2
    configuration: dict[str, Any] = {}
    for name, value in (kept | OFF | COLLAPSE | own).items():
        *sections, last = name.split(".")
        here = configuration
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = value
    (folder / "configuration.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))
    (folder / "panels.json").unlink()
    old = {new: name for name, new in METRICS.items() if "/" not in name}

    def row_of(row: dict[str, Any]) -> dict[str, Any]:
        return {old.get(name, name.replace("curriculum/", "")): value for name, value in row.items()}

    def verdict_of(line: str) -> str:
        row = json.loads(line)
        return json.dumps({"task": row["task"], "attempt": row["attempt"], "verdict": row["reward"]})

    for name in ("metrics.jsonl", "timings.jsonl"):
        rows = [row_of(json.loads(line)) for line in (folder / name).read_text().splitlines()]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (folder / "ledger").glob("*.gz"):
        head, *attempts = gzip.decompress(path.read_bytes()).decode().splitlines()
        told = json.loads(head)
        told["counts"], told["seconds"] = row_of(told["counts"]), row_of(told["seconds"])
        if note := told.pop("notes", {}).get("vote_calibration"):
            told["counts"]["agreement_min_share"] = note["min_share"]
        path.write_bytes(gzip.compress("\n".join([json.dumps(told), *map(verdict_of, attempts)]).encode()))
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        tensors = load_file(checkpoint / "learner.safetensors")
        owners = {name: name.partition(".")[0] for name in tensors}
        held = "w" if own.get("collapse.action") == "fall_back" else "g"
        letters = {name: held if owner == "run" else LETTERS[owner] for name, owner in owners.items() if owner in (*LETTERS, "run")}
        renamed = {letters[name] + name[len(owners[name]) :]: tensors[name] for name in letters}
        save_file(renamed, checkpoint / "learner.safetensors")
        progress = json.loads((checkpoint / "progress.json").read_text())
        (checkpoint / "progress.json").unlink()
        (checkpoint / "progress.json").write_text(json.dumps(progress | {"sha256": checksums_of(checkpoint)}))


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_of_before_goes_on_as_if_nothing_had_been_renamed(kind, tmp_path, small: Callable[..., dict[str, Any]], killed):
    overrides, before = RUNS[kind]
    whole, folder = small(tmp_path / "whole", overrides), tmp_path / "run"
    with killed(Loop, "update", lambda loop, step, batch: step == 4):
        small(folder, overrides)
    as_before(folder, before)
    assert small(folder, overrides, resume=True) == whole
    rows = [renamed_metrics(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    weights = [(path / "model/model.safetensors").read_bytes() for path in (folder, tmp_path / "whole")]
    assert weights[0] == weights[1]


def test_a_run_of_before_with_other_settings_is_told_of_them_by_their_names_of_now(tmp_path, small: Callable[..., dict[str, Any]], killed):
    overrides, before = RUNS["learning"]
    with killed(Loop, "update", lambda loop, step, batch: step == 1):
        small(tmp_path / "run", overrides)
    as_before(tmp_path / "run", before)
    with pytest.raises(UserError, match=r"started with callbacks\.gate\.every = 2, now it is 1"):
        small(tmp_path / "run", overrides | {"gate.every": 1}, resume=True)
    with pytest.raises(UserError, match=r"started with callbacks\.\w+\.\w+ = .*, now it is None"):
        small(tmp_path / "run", {}, resume=True)


def test_a_finished_run_of_before_is_read_and_reported_as_one_of_now(tmp_path, small: Callable[..., dict[str, Any]]):
    overrides, before = RUNS["learning"]
    small(tmp_path / "run", overrides)
    now = read_run(tmp_path / "run", "run", 1000)
    as_before(tmp_path / "run", before)
    found = read_run(tmp_path / "run", "run", 1000)
    assert found.steps == now.steps and any("gate/passed" in row for row in found.steps)
    assert (found.result, found.rows, found.attempts, found.notes) == (now.result, now.rows, now.attempts, now.notes)
    write_report([tmp_path / "run"], tmp_path / "report.html")
    assert "<svg" in (tmp_path / "report.html").read_text()
