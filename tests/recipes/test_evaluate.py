import json
from pathlib import Path

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.recipes.evaluate import EvaluateSettings, evaluate
from etude.recipes.settings import Evaluation, Machine

FLOAT32 = Machine(precision="float32")


def test_a_saved_model_measures_as_its_run_said(small, letter_files):
    files = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "evaluation.n": None, "n": None}
    result = small(letter_files / "run", files)
    suite = Evaluation(path=["test.jsonl"], pass_n=5, num_samples=2)
    found = evaluate(str(letter_files / "run" / "model"), EvaluateSettings(evaluation=suite, max_new_tokens=4, machine=FLOAT32))
    row = next(row for row in result["evaluation"] if row["model"] == "practice")
    same = set(row) - {"model", "baselines", "baseline_constant"}  # there is no training set here to count answers of
    assert {name: found["evaluation"][0][name] for name in same} == {name: row[name] for name in same}
    page = json.loads(Path("run/evaluation/practice.json").read_text())
    assert found["items"]["test"] == page["suites"][0]["items"]


def test_the_tasks_of_a_recipe_can_be_measured(finished):
    settings = EvaluateSettings(recipe="tiny", evaluation=Evaluation(n=20, pass_n=5, num_samples=2), machine=FLOAT32)
    row = evaluate(str(finished / "model"), settings)["evaluation"][0]
    expected = next(row for row in json.loads((finished / "result.json").read_text())["evaluation"] if row["model"] == "practice")
    assert row["suite"] == "tiny" and row["accuracy"] == expected["accuracy"] and row["pass_at_2"] == expected["pass_at_2"]


def test_the_command_writes_its_result(finished, letter_files, capsys):
    arguments = ["--evaluation.path", "test.jsonl", "--evaluation.num_samples", "0", "--max_new_tokens", "2", "--json", "out/found.json"]
    assert main(["evaluate", str(finished / "model"), *arguments]) == 0
    found = json.loads(Path("out/found.json").read_text())
    assert found["evaluation"][0]["n"] == 25 and found["evaluation"][0]["pass_n"] == 0
    assert "model on test" in capsys.readouterr().out


def test_there_must_be_something_to_measure(finished):
    with pytest.raises(UserError, match=r"set --evaluation\.path to one or more files, or --recipe"):
        evaluate(str(finished / "model"))


def test_a_truncated_model_is_one_sentence(finished, letter_files, capsys):
    broken = letter_files / "broken"
    broken.mkdir()
    for path in (finished / "model").iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[: len(content) // 2] if path.suffix == ".safetensors" else content)
    assert main(["evaluate", str(broken), "--evaluation.path", "test.jsonl"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"etude: model '{broken}' can't be loaded: ") and error.count("\n") == 1
