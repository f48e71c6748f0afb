"""A user's own callback: by its file on the command line, in YAML, and as an object from Python."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from etude import Callback
from etude.callbacks.gate import Gate, GateSettings
from etude.errors import UserError
from etude.recipes.practice import practice
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.training.callback import Excludes
from etude.training.parse import parse_practice
from etude.training.settings import PracticeSettings

MINE = '''
from dataclasses import dataclass

import torch

from etude import Callback, UserError
from etude.training.callback import Excludes


@dataclass(frozen=True)
class Counting:
    """Counts tokens."""

    rate: float = 0.5
    """What a token counts."""

    def __post_init__(self):
        if self.rate < 0:
            raise UserError(f"mine.rate must be 0 or more, got {self.rate}")


class Mine(Callback):
    """Counts own tokens of all steps."""

    Settings = Counting
    excludes = (
        Excludes("learn.method", "set it to policy_gradient", "counts tokens of the policy gradient", allowed=("policy_gradient",)),
    )

    def __init__(self, settings):
        super().__init__(settings)
        self.total = 0.0

    def before_update(self, batch):
        self.total += self.settings.rate * batch.own_tokens
        return {f"{self.name}/total": self.total}

    def finish(self):
        return {"total": self.total}

    def state_dict(self):
        return {"total": torch.tensor(self.total, dtype=torch.float64)}

    def load_state_dict(self, tensors):
        self.total = float(tensors["total"])


@dataclass(frozen=True)
class Nothing:
    """No settings."""


class Loud(Callback):
    """Takes another's metric."""

    Settings = Nothing

    def before_update(self, batch):
        return {"mine/total": 0.0}


class WithoutSettings(Callback):
    """Has none."""


class NotACallback:
    Settings = Counting


class SettingsOfAnotherKind(Callback):
    Settings = dict


@dataclass(frozen=True)
class Needing:
    n: int


class Needy(Callback):
    """Needs a number."""

    Settings = Needing


def function():
    pass
'''
TINY = find_configuration("practice", "tiny")


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with `mine.py`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("raise ValueError('no such day')")
    return tmp_path


def parsed(overrides: dict[str, Any] | list[str], yaml_text: str = "") -> PracticeSettings:
    """Settings of `tiny` with more YAML behind it, and overrides as Python values or as words."""
    Path("own.yaml").write_text(TINY.read_text() + yaml_text)
    return parse_practice(Path("own.yaml"), overrides if isinstance(overrides, list) else arguments_from(overrides, PracticeSettings))


WAYS = {
    "one word": ["--callbacks.mine=mine.py:Mine", "--callbacks.mine.rate", "2"],
    "short": ["--callbacks.mine", "mine.py:Mine", "--mine.rate", "2"],
    "class as a setting": ["--callbacks.mine.class", "mine.py:Mine", "--mine.rate=2"],
    "a mapping": ["--callbacks.mine", "{class: mine.py:Mine, rate: 2}"],
    "Python, dotted": {"callbacks.mine": "mine.py:Mine", "callbacks.mine.rate": 2},
    "Python, short": {"callbacks.mine": "mine.py:Mine", "mine.rate": 2},
    "Python, nested": {"callbacks": {"mine": {"class": "mine.py:Mine", "rate": 2}}},
    "Python, half nested": {"callbacks.mine": {"class": "mine.py:Mine", "rate": 2}},
}


@pytest.mark.parametrize("overrides", WAYS.values(), ids=WAYS)
def test_a_class_is_named_with_its_settings(overrides, mine):
    found = parsed(overrides)
    assert found.callback_classes == {"mine": "mine.py:Mine"}
    assert list(found.callbacks) == ["collapse", "mine"], "users' own are called last"
    assert found.callbacks["mine"].rate == 2.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("callbacks: {mine: mine.py:Mine}", 0.5),
        ("callbacks: {mine: {class: mine.py:Mine}}", 0.5),
        ("callbacks: {mine: {class: mine.py:Mine, rate: 2}}", 2.0),
        ("callback_classes: {mine: mine.py:Mine}\ncallbacks: {mine: {rate: 3}}", 3.0),
    ],
)
def test_yaml_names_a_class_with_its_settings(text, rate, mine):
    found = parsed({}, text)
    assert found.callbacks["mine"].rate == rate and found.callback_classes == {"mine": "mine.py:Mine"}
    assert parsed(["--mine.rate", "7"], text).callbacks["mine"].rate == 7.0
    assert parsed({"mine": {"rate": 7}}, text).callbacks["mine"].rate == 7.0
    for out in (["--callbacks.mine", "false"], ["--mine", "false"], {"callbacks": {"mine": False}}, {"mine": False}):
        without = parsed(out, text)
        assert "mine" not in without.callbacks and not without.callback_classes


def test_a_class_may_stand_in_a_module(mine, monkeypatch):
    (mine / "own_package").mkdir()
    (mine / "own_package/counting.py").write_text(MINE)
    monkeypatch.syspath_prepend(mine)
    assert parsed(["--callbacks.mine", "own_package.counting:Mine"]).callbacks["mine"].rate == 0.5


MISTAKES = {
    "callbacks: {mine: mine.py:Min}": "callbacks.mine: unknown class in mine.py 'Min': did you mean 'Mine'?",
    "callbacks: {mine: mien.py:Mine}": "callbacks.mine: class file 'mien.py' is missing: did you mean 'mine.py'?",
    "callbacks: {mine: 'mine.py:'}": "callbacks.mine: a class is named file.py:class or package.module:class, got 'mine.py:'",
    "callbacks: {mine: absent.module:Mine}": "callbacks.mine: module 'absent.module' cannot be imported",
    "callbacks: {mine: broken.py:Mine}": "callbacks.mine: broken.py does not run: ValueError: no such day",
    "callbacks: {mine: mine.py:WithoutSettings}": "callbacks.mine: mine.py:WithoutSettings has no settings: give it a frozen dataclass",
    "callbacks: {mine: mine.py:SettingsOfAnotherKind}": "callbacks.mine: mine.py:SettingsOfAnotherKind has no settings: give it",
    "callbacks: {mine: mine.py:NotACallback}": "callbacks.mine: mine.py:NotACallback must be a class that extends etude.Callback",
    "callbacks: {mine: mine.py:function}": "callbacks.mine: mine.py:function must be a class that extends etude.Callback",
    "callbacks: {mine: mine.py:Needy}": "callbacks.mine.n must be set: it has no default",
    "callbacks: {mine: {class: mine.py:Mine, rat: 2}}": "own.yaml: unknown setting callbacks.mine.rat: did you mean callbacks.mine.rate?",
    "callbacks: {mine: {class: mine.py:Mine, rate: fast}}": "own.yaml: callbacks.mine.rate: expected a number, got fast",
    "callbacks: {mine: {class: mine.py:Mine, rate: -1}}": "callbacks.mine.rate must be 0 or more, got -1.0",
    "callbacks: {mine: {rate: 2}}": "One of your own names its class, callbacks: {mine: {class: FILE.py:CLASS}}",
    "callbacks: {gate: mine.py:Mine}": "callbacks.gate is a callback that ships: give mine.py:Mine another name",
    "callbacks: {optimizer: mine.py:Mine}": "callbacks.optimizer: the name optimizer is taken",
    "callbacks: {evaluation: mine.py:Mine}": "callbacks.evaluation: the name evaluation is taken in result.json",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_file_is_one_sentence(text, mine):
    with pytest.raises(UserError, match=re.escape(MISTAKES[text])) as caught:
        parsed({}, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--callbacks.mine", "mine.py:Mine", "--mine.rat", "2"], "unknown setting --mine.rat: did you mean --mine.rate?"),
        (["--callbacks.mine.rate", "2"], "One of your own names its class, --callbacks.mine FILE.py:CLASS"),
        (["--callbacks.mine", "mine.py"], "One of your own names its class, --callbacks.mine FILE.py:CLASS"),
        (["--callbacks.mine", "mine.py:Mine", "--learn.method", "imitation"], "set it to policy_gradient, or leave mine out"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(words, message, mine):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parsed(words)
    assert "\n" not in str(caught.value)


def test_a_run_takes_it_along_in_metrics_result_configuration_and_checkpoints(
    mine, small: Callable[..., dict[str, Any]], killed_behind_step_3
):
    listed = {"callbacks.mine": "mine.py:Mine", "callbacks.mine.rate": 2}
    result = small(mine / "whole", listed)
    rows = [json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    totals = [row["mine/total"] for row in rows if row["phase"] == "practice"]
    assert totals == sorted(totals) and totals[0] > 0 and result["mine"] == {"total": totals[-1]}
    kept = yaml.safe_load(Path("whole/configuration.yaml").read_text())
    assert kept["callbacks"]["mine"] == {"rate": 2.0} and kept["callback_classes"] == {"mine": "mine.py:Mine"}
    with killed_behind_step_3:
        small(mine / "killed", listed)
    assert small(mine / "killed", listed, resume=True) == result
    assert Path("killed/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()


def test_two_that_report_the_same_metric_are_told_apart(mine, small: Callable[..., dict[str, Any]]):
    with pytest.raises(UserError, match=r"callback loud reports mine/total, which another one reports: name its metrics loud/"):
        small(mine / "run", {"callbacks.mine": "mine.py:Mine", "callbacks.loud": "mine.py:Loud"})


@dataclass(frozen=True)
class Length:
    """How long answers may be."""

    most: int = 3


class Shortest(Callback):
    """Notes the shortest attempt of every step."""

    name, Settings = "shortest", Length
    excludes = (Excludes("learn.method", "set it to policy_gradient", "looks at the policy gradient", allowed=("policy_gradient",)),)

    def before_update(self, batch: Any) -> dict[str, Any]:
        return {"shortest/tokens": min(each.num_own_tokens for group in batch.groups for each in group.attempts)}

    def finish(self) -> dict[str, Any]:
        return {"most": self.settings.most}


def test_an_object_from_python_joins_those_of_the_settings(tmp_path, small: Callable[..., dict[str, Any]], finished):
    result = small(tmp_path / "run", callbacks=[Shortest(Length(5))])
    assert result["shortest"] == {"most": 5}
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(row.pop("shortest/tokens") > 0 for row in rows if row["phase"] == "practice")
    assert rows == [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()], "it only looks"


class Nameless(Callback):
    """Has no name."""

    Settings = Length


@pytest.mark.parametrize(
    ("objects", "overrides", "message"),
    [
        ([Shortest(Length()), Shortest(Length())], {}, "callbacks: Shortest has the name shortest, which is taken"),
        ([Gate(GateSettings(2))], {"gate.every": 2, "gate.max_divergence": 1}, "callbacks: Gate has the name gate, which is taken"),
        ([Nameless(Length())], {}, "callbacks: Nameless has no name: give the class one, name = 'nameless'"),
        ([Length()], {}, "callbacks: expected objects of classes that extend etude.Callback, got Length"),
        (
            [Shortest(Length())],
            {"learn.method": "imitation"},
            "learn.method imitation is set: set it to policy_gradient, or leave shortest out",
        ),
        ([Gate(GateSettings(2))], {}, "gate has nothing to go by"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_object_that_does_not_go_with_the_settings_is_refused_before_anything_is_loaded(objects, overrides, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        practice("tiny", overrides, run=tmp_path / "run", callbacks=objects)
    assert not (tmp_path / "run").exists()
