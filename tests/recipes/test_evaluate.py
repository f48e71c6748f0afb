import json
from pathlib import Path

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.recipes.evaluate import evaluate, parse_evaluate
from etude.recipes.generate import parse_generate
from etude.training.generation_config import FILE

FLOAT32 = {"machine.dtype": "float32"}
SAMPLED = {"evaluation.pass_n": 5, "evaluation.num_samples": 2}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, r"set --evaluation\.path to one or more files, or --recipe"),
        ({"recipe": "tiny", "judge.model": "x", "judge.url": "http://localhost:1"}, "choose a --method"),
        ({"recipe": "tiny", "decoding.method": "majority", "judge.model": "x", "judge.how": "rubric"}, "here answers are compared"),
    ],
)
def test_nothing_to_measure_or_to_compare_is_refused(model, settings, words):
    with pytest.raises(UserError, match=words):
        evaluate(model, settings)


def test_a_saved_model_measures_as_its_run_said(small, letter_files):
    files = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "evaluation.n": None, "n": None}
    asked = {"system": "Repeat.", "rollout.max_new_tokens": 3, "rollout.sampling.temperature": 0.8}
    result = small(letter_files / "run", files | asked)
    found = evaluate(str(letter_files / "run" / "model"), {"evaluation.path": ["test.jsonl"]} | SAMPLED | FLOAT32)
    row = next(row for row in result["evaluation"] if row["model"] == "practice")
    same = set(row) - {"model", "baselines", "baseline_constant", "baseline_rewards"}  # there is no training set here to count answers of
    assert {name: found["evaluation"][0][name] for name in same} == {name: row[name] for name in same}
    page = json.loads(Path("run/evaluation/practice.json").read_text())
    assert found["items"]["test"] == page["suites"][0]["items"]


def test_a_models_generation_config_is_used_and_options_override_it(small, tmp_path):
    small(tmp_path / "run", {"system": "Repeat.", "rollout.max_new_tokens": 3, "rollout.sampling.temperature": 0.5, "steps": 2})
    for folder in ("model", "checkpoints/step-00002", "checkpoints/warm_start"):
        model = str(tmp_path / "run" / folder)
        settings = parse_evaluate(model, ["--sampling.temperature", "0.7"])
        assert (settings.system, settings.max_new_tokens, settings.sampling.temperature) == ("Repeat.", 3, 0.7)
        generating = parse_generate(model, ["--max_new_tokens", "9"])
        assert (generating.system, generating.max_new_tokens, generating.sampling.is_greedy) == ("Repeat.", 9, True)


def test_what_a_model_remembers_can_name_no_code(finished, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    (model / FILE).write_text("system: x\ntasks: {function: evil.py:run}\n")
    assert main(["evaluate", str(model), "--evaluation.path", "test.jsonl"]) == 2
    assert f"{model / FILE}: unknown setting tasks:" in capsys.readouterr().err
    (model / FILE).write_text("verifier: evil.py:run\n")
    assert main(["evaluate", str(model), "--evaluation.path", "test.jsonl"]) == 2
    assert "sets verifier; it may set only system, instruction, max_new_tokens and sampling" in capsys.readouterr().err


def test_the_tasks_of_a_recipe_can_be_measured(finished):
    row = evaluate(str(finished / "model"), {"recipe": "tiny", "evaluation.n": 20} | SAMPLED | FLOAT32)["evaluation"][0]
    expected = next(row for row in json.loads((finished / "result.json").read_text())["evaluation"] if row["model"] == "practice")
    assert row["suite"] == "tiny" and row["accuracy"] == expected["accuracy"] and row["pass_at_2"] == expected["pass_at_2"]


def test_further_suites_of_a_recipe_come_with_it():
    settings = parse_evaluate("smollm2-135m", ["--recipe", "quickstart"])
    assert settings.evaluation.parameters == {"held_out": {"rules": "held_out"}}


def test_options_change_a_recipe_and_keep_the_rest_of_it(finished, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "tasks: {path: [train.jsonl], columns: {question: q}}\nsystem: S\n"
        "rollout: {max_new_tokens: 5, sampling: {temperature: 0.6}}\nevaluation: {path: [a.jsonl, b.jsonl], pass_n: 7}\n"
    )
    settings = parse_evaluate(str(finished / "model"), ["--recipe", str(recipe), "--evaluation.n", "3", "--verifier", "exact"])
    assert (settings.evaluation.path, settings.evaluation.n, settings.evaluation.pass_n) == (["a.jsonl", "b.jsonl"], 3, 7)
    assert (settings.system, settings.max_new_tokens, settings.sampling.temperature) == ("S", 5, 0.6)
    assert (settings.columns, settings.verifier) == ({"question": "q"}, "exact")


def test_the_command_writes_its_result(finished, letter_files, capsys):
    arguments = ["--evaluation.path", "test.jsonl", "--evaluation.num_samples", "0", "--max_new_tokens", "2", "--json", "found.json"]
    assert main(["evaluate", str(finished / "model"), *arguments]) == 0
    found = json.loads(Path("found.json").read_text())
    assert found["evaluation"][0]["n"] == 25 and found["evaluation"][0]["pass_n"] == 0
    assert "model on test" in capsys.readouterr().out
