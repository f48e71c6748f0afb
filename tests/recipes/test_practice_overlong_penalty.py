"""Practice in which length counts; models that are measured, and answer, behind thoughts of fixed lengths."""

import json

import pytest
from run_outputs import attempts_of, practised

from etude.cli import main
from etude.device.machine import Machine
from etude.errors import UserError
from etude.recipes.evaluate import evaluate, parse_evaluate
from etude.recipes.generate import generate, parse_generate

QUESTION = "repeat c after 1234: c"
THOUGHT = {"evaluation.thought.budgets": [0, 3], "evaluation.thought.cue": "so ", "evaluation.thought.answer_tokens": 2}
LENGTH = {"overlong_penalty.buffer_tokens": 3, "overlong_penalty.penalty_weight": 0.5, "overlong_penalty.mask_truncated_completions": True}
FLOAT32 = Machine(dtype="float32")


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("length") / "run"
    small(folder, LENGTH | THOUGHT)
    return folder


def test_lengths_are_told_and_change_what_is_learned_but_not_what_is_measured_before(run, finished):
    rows, plain = practised(run), practised(finished)
    assert all(0 <= row["overlong_penalty/masked"] <= row["overlong_penalty/penalised"] <= 1 for row in rows)
    assert rows[0]["overlong_penalty/penalised"] > 0
    assert "overlong_penalty/penalised" not in plain[0] and rows[0]["score"] == plain[0]["score"] and rows[0] != plain[0]
    attempts = attempts_of(run)
    assert {row["score"] for row in attempts} <= {0.0, 1.0}
    assert {row["advantage"] is None for row in attempts if row["finish"] == "length"} <= {True}


def test_every_model_of_a_run_is_measured_behind_thoughts(run):
    for row in json.loads((run / "result.json").read_text())["evaluation"]:
        none, short = row["thought"]
        assert (none["budget_tokens"], none["extended"], none["cut"], short["budget_tokens"]) == (0, 0.0, 1.0, 3)
        assert none["own_tokens"] <= 2 and short["accuracy_low"] <= short["accuracy"] <= short["accuracy_high"]
    page = (run / "report.html").read_text()
    assert "After a thought of fixed length" in page and page.count("Tokens of thought") == 1


def test_the_saved_model_is_measured_as_its_run_said(run):
    how = {"recipe": "tiny", "evaluation.n": 20, "evaluation.pass_n": 0, "machine.dtype": "float32"}
    short = {name.removeprefix("evaluation."): value for name, value in THOUGHT.items()}
    assert parse_evaluate(str(run / "model"), ["--thought.budgets", "[0, 3]"]).evaluation.thought.budgets == [0, 3]
    found = evaluate(str(run / "model"), how | short)["evaluation"][0]
    kept = json.loads((run / "result.json").read_text())["evaluation"]
    assert found["thought"] == next(row["thought"] for row in kept if row["model"] == "practice")


def test_an_answer_is_given_behind_a_thought(run, tmp_path, capsys):
    with pytest.raises(UserError, match=r"thought.budget_tokens must be at least 0"):
        parse_generate(str(run / "model"), ["--thought.budget_tokens", "-1"])
    with pytest.raises(UserError, match=r"leaves no room for a prompt"):
        generate(str(run / "model"), [QUESTION], {"thought.budget_tokens": 300})
    model = str(run / "model")
    options = ["--thought.budget_tokens", "5", "--thought.cue", "so ", "--thought.answer_tokens", "3", "--machine.dtype", "float32"]
    assert main(["generate", model, "--prompt", QUESTION, *options, "--json", str(tmp_path / "out.json")]) == 0
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert capsys.readouterr().out == row["completions"][0] + "\n" and "so " in row["completions"][0]
    assert row["thought"]["budget_tokens"] == 5 and row["thought"]["own_tokens"][0] <= 8
    sampled = parse_generate(model, [*options, "--num_samples", "3", "--sampling.temperature", "1.5"])
    rows = generate(model, [QUESTION, "more"], sampled)
    assert [len(row["completions"]) for row in rows] == [3, 3] == [len(row["thought"]["ends_taken_back"]) for row in rows]
    assert rows == generate(model, [QUESTION, "more"], sampled)
