"""One contract over every callback of the table, each under settings at which it acts on a small run of `tiny`.

A new callback is tested without a new line where it acts with its defaults; else `ACTS` says how.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

import etude.recipes.practice as recipe
from etude.callbacks import CALLBACKS, callback_class, settings_class
from etude.errors import UserError
from etude.recipes.practice import Loop, practice
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, flatten, to_plain_values
from etude.settings.help import help_of
from etude.settings.yaml_text import as_yaml
from etude.training.callback import Callback, Excludes, check_callbacks
from etude.training.callback_list import CallbackList
from etude.training.parse import parse_practice, practice_defaults

SMALL = {
    "n": 40,
    "steps": 4,
    "warm_start.steps": 0,
    "rollout.tasks_per_step": 5,
    "rollout.num_samples": 4,
    "evaluation.n": 6,
    "evaluation.pass_n": 2,
    "evaluation.num_samples": 2,
    "save_steps": 2,
    "machine.dtype": "float32",
}
TEXT = "The wren sang of the rain, and the miller gave it bread. " * 8


@dataclass(frozen=True)
class Acts:
    """Settings under which a callback acts."""

    own: dict[str, Any] = field(default_factory=dict)
    needs: dict[str, Any] = field(default_factory=dict)
    """Settings of the recipe, by dotted name."""
    allows: dict[str, Any] = field(default_factory=dict)
    """Those that are for a recipe with the callback alone."""
    shares: bool = True
    """Whether others can run beside it: False where it ends practice early."""


ALONE = {"reward": "majority_vote"}
SURER = ALONE | {"learn.optimizer.learning_rate": 0.03, "learn.optimizer.warmup_steps": 0}
PROBE = {"retention.probe": True, "retention.n": 4, "retention.text_tokens": 100}
ACTS = {
    "temperature_schedule": Acts({"end": 1.5}),
    "curriculum": Acts({"method": "weakness"}),
    "vote_calibration": Acts({"n": 6, "every": 2}, ALONE),
    "step_model": Acts(allows={"learn.advantage": "vineppo"}),
    "rationalize": Acts(needs={"learn.method": "imitation"}),
    "synthetic_tasks": Acts({"method": "proposer", "max_new_tokens": 12}, ALONE),
    "entropy_bonus": Acts({"target": 9.0, "delta": 0.1}),
    "reward_shaping": Acts({"method": "novelty"}),
    "overlong_penalty": Acts({"buffer_tokens": 3, "mask_truncated_completions": True}),
    "down_sampling": Acts({"num_train": 2}),
    "implicit_reward": Acts({"coef": 1.0}),
    "kl_penalty": Acts({"kl_coef": 0.5}),
    "replay": Acts({"path": ["text.txt"], "ratio": 1.0, "kl_coef": 0.5, "window_tokens": 16}),
    "token_budget": Acts({"tokens": 90}, shares=False),
    "collapse": Acts({"action": "rollback", "window": 2, "rise": 1e-6, "fall": 1.0}, SURER),
    "gate": Acts({"every": 1, "max_divergence": 1e-6, "max_rollbacks": 9, "action": "lower_lr"}, PROBE),
    "divergence": Acts({"n": 3}),
}
OTHER_METRICS = {
    "temperature_schedule": {"temperature"},
    "kl_penalty": {"anchor_loss", "kl_reference"},
    "replay": {"replay_loss", "replay_nats", "replay_divergence"},
}
"""Metrics that do not begin with the callback's name: those of a loss are called by its stream."""
OF_THE_LOOP = {"unscored_reason"}
"""Metrics of the loop that are there where there is something to tell."""
OF_OTHER_SETTINGS = {"curriculum/level"}
"""Metrics of charts that the callback reports under other settings."""
CLOCKED = {"timings.jsonl", "environment.json", "report.html", "lock", "ledger"}
"""Files and folders with times."""
NAMES = tuple(CALLBACKS)


def overrides_of(names: tuple[str, ...]) -> dict[str, Any]:
    """The small run with these callbacks, and with none but them."""
    acts = {name: ACTS.get(name, Acts()) for name in names}
    listed = {f"callbacks.{name}.{key}": value for name, its in acts.items() for key, value in its.own.items()}
    listed |= {f"callbacks.{name}": True for name, its in acts.items() if not its.own}
    needs = {key: value for its in acts.values() for key, value in {**its.needs, **its.allows}.items()}
    return SMALL | needs | ({} if "collapse" in names else {"callbacks.collapse": False}) | listed


def parsed(overrides: dict[str, Any]) -> Any:
    return parse_practice(find_configuration("practice", "tiny"), arguments_from(overrides))


def go_together(names: tuple[str, ...]) -> bool:
    """Tell whether the callbacks may be in one run."""
    acts = [ACTS.get(name, Acts()) for name in names]
    if len(names) > 1 and not all(its.shares for its in acts):
        return False
    needs = [item for its in acts for item in {**its.needs, **its.allows}.items()]
    if any(dict(needs)[key] != value for key, value in needs):
        return False
    try:
        return bool(parsed(overrides_of(names)))
    except UserError:
        return False


def groups() -> list[tuple[str, ...]]:
    """All callbacks in few runs: each joins the first that it goes with."""
    found: list[tuple[str, ...]] = []
    for name in NAMES:
        place = next((place for place, names in enumerate(found) if go_together((*names, name))), None)
        if place is None:
            found.append((name,))
        else:
            found[place] += (name,)
    return found


GROUPS = groups()


@dataclass
class Done:
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    callbacks: CallbackList
    run: Any

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for row in map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines()) if row["phase"] == "practice"]

    @property
    def files(self) -> dict[str, bytes]:
        """All that has to be the same however often the run was killed."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and not CLOCKED & {*path.relative_to(self.folder).parts}]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Done]]:
    """`make(overrides, folder)` runs the recipe from a model that has seen demonstrations, made once."""
    scratch = tmp_path_factory.mktemp("contract")
    (scratch / "text.txt").write_text(TEXT)
    warm = {"steps": 0, "warm_start.steps": 20, "save_steps": 0}
    practice("tiny", SMALL | warm, run=scratch / "warm")
    started: list[tuple[CallbackList, Any]] = []
    start = CallbackList.start

    def keeping(callbacks: CallbackList, run: Any) -> None:
        started.append((callbacks, run))
        start(callbacks, run)

    def run(overrides: dict[str, Any], folder: Path | None = None, *, resume: bool = False) -> Done:
        folder = folder or tmp_path_factory.mktemp("run") / "run"
        result = practice("tiny", {"model": str(scratch / "warm/model"), **overrides}, run=folder, data=scratch, resume=resume)
        return Done(folder, result, *started[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallbackList, "start", keeping)
        yield run


@pytest.fixture(scope="module")
def once(make: Callable[..., Done]) -> Callable[[dict[str, Any]], Done]:
    """As `make`, but one run for the same overrides."""
    done: dict[str, Done] = {}

    def run(overrides: dict[str, Any]) -> Done:
        key = json.dumps(overrides, sort_keys=True)
        if key not in done:
            done[key] = make(overrides)
        return done[key]

    return run


def settings_of(name: str) -> Any:
    return parsed(overrides_of((name,))).callbacks[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_callback_says_what_it_does_and_what_its_settings_are(name):
    own, kind = callback_class(name), settings_class(name)
    assert issubclass(own, Callback) and own.name == name
    assert own.__doc__ and own.__doc__ != Callback.__doc__ and sys.modules[own.__module__].__doc__
    assert kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("), "a docstring of its own"
    told = help_of(kind).split("\n\n")[0]
    assert not (bare := re.findall(r"--(\w+) \S+\s+\((?:type|default)", told)), f"settings without a text: {bare}"


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_a_callback_are_a_frozen_dataclass(name):
    kind = settings_class(name)
    assert is_dataclass(kind) and kind.__dataclass_params__.frozen
    with pytest.raises(AttributeError):
        setattr(settings_of(name), fields(kind)[0].name, None)


def test_callbacks_and_their_settings_need_no_torch():
    code = "import sys; from etude.callbacks import CALLBACKS, settings_class; [settings_class(name) for name in CALLBACKS]; "
    found = subprocess.run([sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True)
    assert found.stdout == "False\n", found.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_callback_acts_under_its_own_name(name, once):
    without, done = once(overrides_of(()) | ACTS.get(name, Acts()).needs), once(overrides_of((name,)))
    (own,) = done.callbacks
    metrics = {key for row in done.rows for key in row} - {key for row in without.rows for key in row}
    wrong = {key for key in metrics if not key.startswith(f"{name}/")} - OTHER_METRICS.get(name, set()) - OF_THE_LOOP
    assert not wrong, f"metrics of {name} that do not begin with {name}/"
    assert {metric for panel in own.panels for metric in panel.measures} - OF_OTHER_SETTINGS <= {key for row in done.rows for key in row}
    assert (done.rows, done.result) != (without.rows, without.result), "the settings in ACTS must make it act"
    found = own.finish()
    assert (name in done.result) == (found is not None)
    if found is not None:
        assert json.loads(json.dumps(found)) == json.loads((done.folder / "result.json").read_text())[name]
    assert set(done.result) - set(without.result) <= {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_callback_takes_over_the_state_of_another(name, once):
    done = once(overrides_of((name,)))
    (own,) = done.callbacks
    kept = load(save(own.state_dict()))  # as a checkpoint has it
    fresh = callback_class(name)(own.settings)
    fresh.prepare(done.run)
    fresh.start(done.run)
    fresh.load_state_dict(kept)
    again = fresh.state_dict()
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[key], again[key]) and kept[key].dtype == again[key].dtype for key in kept)


@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_a_run_that_is_killed_around_its_checkpoints_ends_with_the_same_bytes(names, make, killed, tmp_path):
    overrides, folder = overrides_of(names), tmp_path / "run"
    whole = make(overrides)
    dying: list[tuple[Any, str, Callable[..., bool]]] = []
    for step in range(2, len(whole.rows) + 1):  # even steps: not yet learned from; odd ones: right behind a checkpoint
        kind = "update" if step % 2 == 0 else "rollout"
        dying.append((Loop, kind, lambda loop, number, *_, step=step: number == step))
    dying.append((recipe, "conclude", lambda *_: True))
    for number, how in enumerate(dying):
        with killed(*how):
            make(overrides, folder, resume=number > 0)
    found, expected = make(overrides, folder, resume=True).files, whole.files
    assert sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_callback_that_is_left_out_leaves_no_settings(name, tmp_path):
    without = overrides_of(()) | ACTS.get(name, Acts()).needs
    listing = tmp_path / "listing.yaml"
    recipe_text = find_configuration("practice", "tiny").read_text()
    listing.write_text(recipe_text + f"callbacks: {json.dumps({name: ACTS.get(name, Acts()).own})}\n")
    assert name in parse_practice(listing, arguments_from(without | {f"callbacks.{name}": True})).callbacks
    assert parse_practice(listing, arguments_from(without | {f"callbacks.{name}": False})) == parsed(without)


def test_a_run_without_callbacks_is_the_recipe_byte_for_byte_whatever_ran_before(make, once):
    before = once(overrides_of(())).files
    make(overrides_of(GROUPS[0]))
    every = make(SMALL | {f"callbacks.{name}": False for name in NAMES}).files
    listed = make(SMALL).files  # a warning that has nothing to say
    assert before == every
    assert before | {**{name: listed[name] for name in ("configuration.yaml", "panels.json")}} == listed


RULES = [(name, rule) for name in NAMES for rule in callback_class(name).excludes]


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[f"{name}-{rule.setting}" for name, rule in RULES])
def test_a_setting_that_a_callback_does_not_go_with_is_named_with_what_to_do(name, rule: Excludes):
    known = practice_defaults()
    assert rule.setting in known or rule.setting.removeprefix("callbacks.") in CALLBACKS
    settings = flatten(to_plain_values(parsed(overrides_of((name,)))))
    own = callback_class(name)(settings_of(name))
    check_callbacks([own], settings)
    values = rule.values or ([True] if isinstance(known.get(rule.setting), bool) else ["another"])
    for value in values:
        with pytest.raises(UserError) as caught:
            check_callbacks([own], settings | {rule.setting: value})
        said = str(caught.value)
        assert said.startswith(f"{name} {rule.because}, and {rule.setting.removeprefix('callbacks.')}")
        assert said.endswith(f"{rule.instead}, or leave {name} out")
        assert rule.setting.startswith("callbacks.") or f"{as_yaml(value)} is set" in said
