from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from etude.errors import UserError
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, lists_of, parse, shipped_configurations, to_plain_values
from etude.training.parse import parse_practice
from etude.training.settings import PracticeSettings


@dataclass(frozen=True)
class Inner:
    """A part."""

    rate: float = 0.5
    """How fast."""
    kind: Literal["round", "flat"] = "round"
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise UserError(f"inner.rate must be 0 or more, got {self.rate}")


@dataclass(frozen=True)
class Outer:
    """A whole."""

    needed: int
    text: str | None = None
    options: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_a_file_and_overrides_become_dataclasses(tmp_path):
    path = written(tmp_path, "command: practice\nneeded: 1\ninner: {rate: 0.25, names: [a]}\noptions: {x: 1}\n")
    found = parse(Outer, path, ["--inner.kind", "flat", "--needed=2", "--inner.names", "b", "c", "--text", ""])
    assert found == Outer(2, "", {"x": 1}, Inner(0.25, "flat", ["b", "c"]))
    assert parse(Outer, None, ["--needed", "3", '--options={"y": 2}', '--inner.names=["d"]']) == Outer(
        3, None, {"y": 2}, Inner(names=["d"])
    )


def test_unset_settings_of_a_section_keep_the_section_default(tmp_path):
    assert parse(Outer, None, ["--needed=1", "--inner.kind", "flat"]).inner == Inner(kind="flat")
    settings = parse_practice(find_configuration("practice", "tiny"), ["--preferences.optimizer.warmup_steps", "7"])
    optimizer = settings.preferences.optimizer
    assert (optimizer.warmup_steps, optimizer.learning_rate) == (7, PracticeSettings(settings.tasks).preferences.optimizer.learning_rate)
    assert settings.warm_start.optimizer.warmup_steps == 3 and settings.learn.optimizer.learning_rate != 0


def test_a_changed_file_is_read_again_and_results_are_not_shared(tmp_path):
    path = written(tmp_path, "needed: 1\noptions: {x: 1}\n")

    def adjust(values, _):
        values["options"]["y"] = 2
        return values

    assert parse(Outer, path, [], adjust=adjust).options == {"x": 1, "y": 2}
    assert parse(Outer, path, []) == Outer(1, options={"x": 1})
    assert parse(Outer, written(tmp_path, "needed: 3\n"), []) == Outer(3)
    written(tmp_path, "needed: three\n")
    for _ in range(2):
        with pytest.raises(UserError, match="needed"):
            parse(Outer, path, [])


def test_a_section_of_a_file_may_be_empty_and_a_list_a_single_word(tmp_path):
    assert parse(Outer, written(tmp_path, "text: a\ninner:\n"), ["--needed", "1"]) == Outer(1, "a")
    assert parse(Outer, written(tmp_path, "needed: 1\ninner: {names: a.jsonl}\n"), []).inner.names == ["a.jsonl"]


def test_a_list_may_be_given_in_parts_and_may_hold_brackets():
    found = parse(Outer, None, ["--needed=1", "--inner.names", "a", "b", "--inner.names=c"])
    assert found.inner.names == ["a", "b", "c"]
    assert parse(Outer, None, ["--needed=1", "--inner.names", "[END]"]).inner.names == ["[END]"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--rollout.search.width", "0"], r"^rollout\.search\.width must be at least 1, got 0$"),
        (
            ["--rollout.search.to_end", "false"],
            r"^rollout\.search\.to_end false .* set rollout\.search\.method to mcts",
        ),
        (["--learn.preference.pairs", "x"], r"^unknown learn\.preference\.pairs 'x'"),
        (["--preferences.steps", "3"], r"^preferences\.steps is set, but preferences\.path names no file"),
    ],
)
def test_mistakes_name_settings_in_full_wherever_their_class_stands(given, message):
    with pytest.raises(UserError, match=message):
        parse(PracticeSettings, None, ["--tasks.family", "gcd", *given])


def test_lists_are_found_in_nested_settings():
    assert lists_of(Outer) == {"inner.names"}
    assert {"tasks.path", "evaluation.path", "warm_start.path"} <= lists_of(PracticeSettings)


def test_python_values_become_arguments(tmp_path):
    values = {"needed": 4, "text": None, "options": {"z": 3}, "inner.names": ["a b", '"'], "inner.rate": 1e-05}
    assert parse(Outer, None, arguments_from(values)) == Outer(4, None, {"z": 3}, Inner(1e-5, names=["a b", '"']))
    assert parse(Outer, None, arguments_from({"needed": 1, "inner.names": tmp_path / "x"})).inner.names == [str(tmp_path / "x")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--neded", "1"], r"^unknown setting --neded: did you mean --needed\?$"),
        (["--rate", "1"], r"did you mean --inner\.rate\?$"),
        (["--zzzz", "1"], r"^unknown setting --zzzz: see --help for all settings$"),
        (["--needed", "many"], r"^--needed: expected a whole number, got many$"),
        (["--needed", "1", "--inner.rate", "fast"], r"^--inner\.rate: expected a number, got fast$"),
        (["--needed", "1", "--inner.kind", "square"], r"^--inner\.kind: expected one of 'round', 'flat', got square$"),
        (["--needed", "1", "--options", "[1]"], r"^--options: expected a mapping, such as '{name: value}', got \[1\]$"),
        (["--needed", "1", "--inner.rate", "-1"], r"^inner\.rate must be 0 or more, got -1\.0$"),
        (["--needed"], r"^--needed needs a value$"),
        (["--needed", "1", "--needed=2"], r"^--needed is given twice: 1 and 2; give it once$"),
        (["--needed", "1", "--options.z", "3"], r"^unknown setting --options\.z: options is one value, --options '\{\"z\": \.\.\.\}'$"),
        (["--inner", "{rate: 1}"], r"^--inner is a section: set --inner\.rate and the like$"),
        (["1"], r"^'1' found where a --key was expected"),
        (["--text", "a"], r"^needed must be set: it has no default$"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(Outer, None, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("neded: 1\n", r"mine\.yaml: unknown setting neded: did you mean needed\?$"),
        ("needed: many\n", r"mine\.yaml: needed: expected a whole number, got many$"),
        ("needed: 1\ninner: 3\n", r"mine\.yaml: inner: expected settings as `key: value` lines, got 3$"),
        ("needed: 1\noptions: [1]\n", r"mine\.yaml: options: expected a mapping, such as '{name: value}', got \[1\]$"),
        ("needed: 1\ninner: [a: }\n", r"mine\.yaml:2: not valid YAML"),
        ("- needed\n", r"mine\.yaml: expected settings as `key: value` lines, got list$"),
        ("text: a\n", r"^needed must be set: it has no default$"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(Outer, written(tmp_path, text), [])
    assert "\n" not in str(caught.value)


def test_hyphens_are_told_from_underscores():
    with pytest.raises(UserError, match=r"unknown setting --warm-start\.n: did you mean --warm_start\.n\?"):
        parse_practice(find_configuration("practice", "tiny"), ["--warm-start.n", "3"])


def test_every_configuration_that_ships_can_be_read():
    assert {"tiny", "quickstart"} <= shipped_configurations("practice").keys()
    for name, path in shipped_configurations("practice").items():
        tasks = ["--tasks.path=mine.jsonl"] if name == "default" else []
        settings = parse_practice(find_configuration("practice", name), tasks)
        assert path.stem == name and settings.steps > 0
        assert to_plain_values(settings)["model"] == settings.model


def test_the_default_configuration_needs_tasks():
    with pytest.raises(UserError, match="a task source needs exactly one of path, family, dataset and function, got none"):
        parse_practice(find_configuration("practice", "default"), [])


def test_configurations_are_found_by_name_and_by_path(tmp_path):
    path = written(tmp_path, "needed: 1")
    assert find_configuration("practice", str(path)) == path
    with pytest.raises(UserError, match=r"unknown practice configuration 'tinny': did you mean 'tiny'\?"):
        find_configuration("practice", "tinny")
    with pytest.raises(UserError, match="no such file"):
        find_configuration("practice", str(tmp_path / "other.yaml"))


FAMILY = """
system: ""
tasks: {family: number_filtering, parameters: {min_numbers: 3}, question: "{numbers}"}
n: 400
warm_start: {n: 320, steps: 20}
evaluation: {n: 200, path: [held_out.jsonl]}
"""


def test_a_source_on_the_command_line_replaces_the_files(tmp_path):
    path = written(tmp_path, FAMILY)
    found = parse_practice(path, ["--tasks.path", "a.jsonl", "b.jsonl"])
    assert found.tasks.path == ["a.jsonl", "b.jsonl"]
    assert found.tasks.family is None and found.tasks.parameters == {} and found.tasks.question is None
    assert (found.n, found.evaluation.n, found.warm_start.n) == (None, None, 0)  # sizes that fitted the family
    assert (found.system, found.warm_start.steps, found.evaluation.path) == ("", 20, ["held_out.jsonl"])
    assert parse_practice(path, ["--tasks.path", "a.jsonl", "--n", "5", "--warm_start.n", "3"]).n == 5


def test_another_family_takes_none_of_the_files_parameters(tmp_path):
    path = written(tmp_path, FAMILY)
    found = parse_practice(path, ["--tasks.family", "chain_sum", '--tasks.parameters={"min_terms": 2}'])
    assert (found.tasks.family, found.tasks.parameters, found.tasks.question) == ("chain_sum", {"min_terms": 2}, None)
    assert found.warm_start.n == 320
    assert parse_practice(path, ["--tasks.family", "number_filtering"]).tasks.parameters == {"min_numbers": 3}
    assert parse_practice(path, ["--tasks.question", "?"]).tasks.parameters == {"min_numbers": 3}


def test_other_files_keep_how_the_files_are_read(tmp_path):
    path = written(tmp_path, "tasks: {path: [a.jsonl], columns: {question: Q}, verifier: numeric}\n")
    found = parse_practice(path, ["--tasks.path", "b.jsonl"]).tasks
    assert (found.path, found.columns, found.verifier) == (["b.jsonl"], {"question": "Q"}, "numeric")


def test_two_sources_on_the_command_line_are_refused(tmp_path):
    with pytest.raises(UserError, match="exactly one of path, family, dataset and function, got path and family"):
        parse_practice(written(tmp_path, FAMILY), ["--tasks.path", "a.jsonl", "--tasks.family", "chain_sum"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["--learn.method", "imitation", "--kl_penalty.kl_coef", "0.1"],
            r"kl_penalty is on the tokens of the policy gradient, and learn\.method imitation is set: set it to policy_gradient, or leave",
        ),
        (["--kl_penalty.kl_coef", "-1"], r"callbacks\.kl_penalty\.kl_coef must be above 0, got -1\.0: leave kl_penalty out"),
        (["--rollout.sampling.temperature", "0"], "makes all attempts at a task equal"),
        (["--rollout.sampling.top_k", "1"], "makes all attempts at a task equal"),
        (["--rollout.num_samples", "1"], r"rollout\.num_samples must be at least 2, got 1"),
        (["--learn.minibatches_per_epoch", "17"], r"minibatches_per_epoch is 17, but a step has only rollout\.tasks_per_step = 16 groups"),
        (["--learn.lora.alpha", "3"], r"learn\.lora\.alpha is 3\.0 but learn\.lora\.rank is 0"),
        (["--learn.advantage", "centered"], r"unknown learn\.advantage 'centered': did you mean 'dr_grpo'\?"),
        (["--learn.loss", "clipped"], r"unknown learn\.loss 'clipped': did you mean 'ppo'\?"),
        (["--reward", "outcome"], r"unknown reward 'outcome': did you mean 'verifier'\?"),
        (["--warm_start.n", "0"], "there are no demonstrations"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        parse_practice(find_configuration("practice", "tiny"), overrides)


def test_an_option_is_read_as_a_line_of_the_file_is(tmp_path):
    for text in ("010", "1:30"):  # 8 and 90 in YAML 1.1
        with pytest.raises(UserError, match=rf"^--needed: expected a whole number, got {text}$"):
            parse(Outer, None, ["--needed", text])
        with pytest.raises(UserError, match=rf"mine\.yaml: needed: expected a whole number, got {text}$"):
            parse(Outer, written(tmp_path, f"needed: {text}\n"), [])
    with pytest.raises(UserError, match=r"^--options: expected a mapping.*, got \{a: 1, a: 2\}"):
        parse(Outer, None, ["--needed", "1", "--options", "{a: 1, a: 2}"])
    assert parse(Outer, None, ["--needed", "1", "--text", "{a: 1, a: 2}"]).text == "{a: 1, a: 2}"
