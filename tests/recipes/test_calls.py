"""What a Python caller may write, and the sentence where it was something else."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from transformers.utils import logging

import etude
from etude import UserError, evaluate, generate, practice
from etude.recipes.calls import without_progress_bars
from etude.settings.arguments import arguments_from
from etude.tiny import tiny_model
from etude.training.settings import PracticeSettings

SHORT = {"max_new_tokens": 2}


def test_the_package_lists_its_names_and_is_typed():
    assert set(etude.__all__) <= set(dir(etude))
    root = Path(etude.__file__).parent
    assert (root / "py.typed").is_file()
    project = tomllib.loads((root.parent / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["etude"]
    assert {"authors", "keywords", "classifiers"} <= project["project"].keys()


def test_a_text_is_one_prompt_and_settings_may_be_a_mapping():
    (row,) = generate("tiny-random", "repeat c", SHORT)
    assert row["prompt"] == "repeat c"
    assert row == generate("tiny-random", ["repeat c"], {"max_new_tokens": np.int64(2), "sampling": {"temperature": 0.0}})[0]
    with pytest.raises(UserError, match=re.escape("prompts[1] must be text, got an int")):
        generate("tiny-random", ["a", 3])


def test_a_folder_may_be_a_path(finished, tmp_path):
    (row,) = generate(finished / "model", "repeat c", SHORT)
    assert row["completions"]
    file = tmp_path / "items.jsonl"
    file.write_text('{"question": "repeat c", "answer": "c"}\n')
    result = evaluate(finished / "model", {"evaluation": {"path": [file]}, "evaluation.num_samples": 1, **SHORT})
    assert result["model"] == str(finished / "model") and result["evaluation"][0]["n"] == 1
    assert arguments_from({"model": finished}) == [f"--model={finished}"]


def test_settings_may_stand_in_sections():
    nested = {"rollout": {"num_samples": 4, "sampling": {"temperature": 0.5}}, "tasks": {"columns": {"question": "q"}}, "steps": 3}
    flat = ["--rollout.num_samples=4", "--rollout.sampling.temperature=0.5", '--tasks.columns={"question": "q"}', "--steps=3"]
    assert arguments_from(nested, PracticeSettings) == flat


def reward(text: str, task: object) -> float:
    return 1.0


def test_settings_may_be_keywords():
    assert generate("tiny-random", "repeat c", **SHORT) == generate("tiny-random", "repeat c", SHORT)
    row = generate("tiny-random", "repeat c", SHORT, temperature=0.7, num_samples=2)[0]
    assert len(row.completions) == 2 and row.text == row["completions"][0]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: generate(tiny_model(), "x"), "model: got a LlamaForCausalLM alone: pass it with its tokenizer, model=(model, tokenizer)"),
        (lambda: evaluate(3), "model must be a bundled name, a folder, a .gguf file, a hub id, or (model, tokenizer), got an int"),
        (lambda: practice("tiny", {"model": tiny_model()}), "which is no setting: pass it with its tokenizer, model=(model, tokenizer)"),
        (
            lambda: practice("tiny", {"tasks.verifier": reward}),
            "tasks.verifier: got a function, which is no setting: pass it as reward=, or",
        ),
        (lambda: practice("tiny", {"tasks": {"path": [reward]}}), "tasks.path: got a function"),
        (lambda: practice("tiny", {"tasks": [{"question": "q"}]}), "--tasks is a section: set --tasks."),
        (lambda: practice("tiny", {"steps": 3}, steps=2), "steps is given twice, as a keyword and in the mapping of settings"),
        (lambda: practice("tiny", stepz=2), "unknown setting --stepz: did you mean --steps?"),
        (lambda: practice({"model": "m"}), "practice takes the name of a recipe or a YAML file first, then settings: practice('tiny', "),
        (lambda: practice("tiny", ["steps=2"]), "settings must be a mapping, such as {'seed': 1}, got a list"),
        (lambda: practice("tiny", reward_weights=[1.0]), "reward_weights are those of several functions"),
        (lambda: practice("tiny", reward=[reward, "exact"]), "reward: 'exact' stands among functions"),
        (lambda: practice("tiny", reward=[reward], reward_weights={"other": 2.0}), "there is no function 'other': they are reward"),
        (lambda: practice("tiny", reward=3), "reward: expected a function, got 3"),
        (lambda: practice(tasks=["one"], reward=reward), "tasks: one prompt alone can't be practised and measured"),
        (lambda: practice(tasks=[], reward=reward), "tasks is empty"),
        (
            lambda: practice(tasks=3, reward=reward),
            "tasks must be a list of texts, dictionaries or Tasks, a data set or a path, got an int",
        ),
        (lambda: practice(tasks=["a", 3], reward=reward), "tasks[1] must be a text, a dictionary or a Task, got an int"),
        (
            lambda: practice(tasks=[{"question": "a", "x": {1}}], reward=reward),
            "tasks[0]: column 'x' has a value that JSON can't hold: set",
        ),
        (lambda: practice(tasks=["a", "b"], evaluation={"a/b": ["c"]}, reward=reward), "'a/b' can't be the name of a suite"),
        (lambda: practice(tasks=[{"q": "a"}, {"q": "b"}], reward=reward), "tasks[0]: no question. The columns are q"),
        (lambda: practice(reward=reward), "a task source needs exactly one of path, family, dataset and function"),
        (lambda: evaluate("tiny-random", tasks=["a"], reward_weights=[1.0]), "reward_weights are those of several functions"),
        (lambda: evaluate("tiny-random", tasks=["a"], reward="random"), "reward: 'random' scores attempts in practice"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_the_way_out(call, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        call()
    assert sentence in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 320
    assert not list(tmp_path.iterdir())


def test_progress_bars_of_libraries_are_off_in_a_call_and_as_before_after_it(finished, capsys):
    before = logging.is_progress_bar_enabled()
    try:
        logging.enable_progress_bar()
        generate(finished / "model", "repeat c", SHORT)
        assert logging.is_progress_bar_enabled() and capsys.readouterr().err == ""
        logging.disable_progress_bar()
        with without_progress_bars():
            pass
        assert not logging.is_progress_bar_enabled()
    finally:
        (logging.enable_progress_bar if before else logging.disable_progress_bar)()
