"""Runs whose verifiers give rewards of any range, or fail."""

import json
from pathlib import Path

import pytest
from run_outputs import attempts_of, practised

from etude.console.reporter import Console
from etude.errors import UserError
from etude.recipes.evaluate import evaluate
from etude.rollouts.independent import IndependentSampler

MINE = """
from pathlib import Path

def distinct(text, task):  # up to 24 different letters: above 1
    return len(set(text)) / 20

def wide(text, task):  # from -5 to 30
    return 35 * min(1.0, sum(letter == "a" for letter in text) / 6) - 5

wide.right_at = 20

def shares(text, task):  # never fully right
    return sum(letter == "a" for letter in text) / 100

def broken(text, task):
    raise ValueError("no number in it")

def repaired(text, task):
    if Path("broken").exists():
        raise ValueError("no number in it")
    return text.startswith(task.answer)

def odd(text, task):  # fails on some answers alone
    if len(set(text)) % 2:
        raise ValueError("an odd number")
    return text.startswith(task.answer)
"""
LEARN = {"warm_start.steps": 0, "rollout.max_new_tokens": 24, "steps": 8, "rollout.tasks_per_step": 8, "rollout.num_samples": 8}
"""Without demonstrations, which would show short answers."""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    return lambda name, **more: {"tasks.verifier": f"mine.py:{name}"} | more


def of(result, model):
    return next(row for row in result["evaluation"] if row["model"] == model)


def test_rewards_above_one_are_learned_from_and_the_best_attempts_count(small, mine, tmp_path):
    result = small(tmp_path / "run", mine("distinct") | LEARN)
    metrics = practised(tmp_path / "run")
    assert sum(row["unscored"] for row in metrics) == 0 and result["unscored"] == {}
    assert metrics[-1]["mean_reward"] > 1.0 and metrics[-1]["mean_reward"] == metrics[-1]["score"]
    before, after = of(result, "base"), of(result, "practice")
    assert after["sampled_mean_reward"] > before["sampled_mean_reward"] + 0.02
    assert result["paired"][0]["sampled_reward_difference"] > 0


def test_rewards_from_minus_5_to_30_are_learned_from_and_right_is_where_the_verifier_says(small, mine, tmp_path):
    result = small(tmp_path / "run", mine("wide") | LEARN)
    before, after = of(result, "base"), of(result, "practice")
    assert after["right_at"] == 20.0 and before["sampled_mean_reward"] < 0 < after["sampled_mean_reward"]
    page = json.loads((tmp_path / "run" / "evaluation" / "practice.json").read_text())
    items = page["suites"][0]["items"]
    assert all(item["right"] == (item["score"] >= 20) for item in items)
    assert after["accuracy"] == sum(item["right"] for item in items) / len(items)


def test_a_gain_that_accuracy_can_not_tell_stands_in_the_page_the_tables_and_the_card(small, mine, tmp_path, capsys):
    result = small(tmp_path / "run", mine("shares") | LEARN, reporter=Console())
    before, after = of(result, "base"), of(result, "practice")
    assert before["accuracy"] == after["accuracy"] == 0.0 and after["mean_reward"] > before["mean_reward"]
    assert result["paired"][0]["leads"] == "mean_reward" and result["paired"][0]["reward_p_value"] < 0.05
    said = capsys.readouterr().out
    assert f", mean reward {after['mean_reward']:.3f} [" in said and "mean reward (95 %)" in said and "; mean reward +0." in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Practice raised the mean reward of greedy answers on tiny: from" in page and "Mean reward" in page
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| mean reward (95 %) |" in card and f"{after['mean_reward']:.3f} [" in card


def test_a_verifier_that_always_fails_stops_the_run_at_once_and_it_goes_on_when_that_is_repaired(small, mine, tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(
        UserError, match=r"measuring tiny: 20 of 20 .*ValueError: no number in it.* Nothing is lost: then go on with --resume"
    ):
        small(tmp_path / "run", mine("repaired"))
    (tmp_path / "broken").unlink()
    assert small(tmp_path / "run", mine("repaired"), resume=True)["status"] == "finished"


def test_a_verifier_that_begins_to_fail_stops_the_step_which_is_made_anew_on_resume(small, mine, tmp_path, monkeypatch):
    whole = small(tmp_path / "whole", mine("repaired"))
    real = IndependentSampler.sample

    def breaks(self, step, *given):
        (tmp_path / "broken").touch() if step == 3 else None
        return real(self, step, *given)

    with monkeypatch.context() as patch:
        patch.setattr(IndependentSampler, "sample", breaks)
        with pytest.raises(UserError, match=r"practice step 3: 24 of 24 answers could not be scored.*as of the answer '.*to 'repeat"):
            small(tmp_path / "run", mine("repaired"))
    assert not (tmp_path / "run" / "ledger" / "00003.jsonl.gz").exists()
    (tmp_path / "broken").unlink()
    Path("mine.py").write_text(f"{MINE}\n# put right\n")
    resumed = small(tmp_path / "run", mine("repaired"), resume=True)
    assert {**resumed, "feedback_counts": None} == {**whole, "feedback_counts": None}


def test_odd_answers_stop_nothing_where_that_is_allowed_and_the_console_says_why_they_have_no_score(small, mine, tmp_path, capsys):
    settings = mine("odd") | {"warm_start.steps": 0, "steps": 1, "max_unscored_share": 1.0}
    result = small(tmp_path / "run", settings, reporter=Console())
    (row,), attempts, reason = practised(tmp_path / "run"), attempts_of(tmp_path / "run"), "the verifier raised ValueError: an odd number"
    broken = [each for each in attempts if len(set(each["text"])) % 2]
    assert broken == [each for each in attempts if each["score"] is None] and all(reason in each["message"] for each in broken)
    assert row["unscored"] == row["crashed"] == len(broken) == result["unscored"]["practice"] > 0
    assert result["status"] == "finished" and result["unscored"]["reason"] == reason
    said = capsys.readouterr().out
    assert f"unscored ({reason})" in said and f"crashed the verifier); most frequent reason: {reason}" in said


def test_an_evaluation_stops_where_the_verifier_fails(mine, tmp_path):
    Path("test.jsonl").write_text("".join(json.dumps({"question": f"repeat {place}: a", "answer": "a"}) + "\n" for place in range(4)))
    settings = {
        "evaluation.path": ["test.jsonl"],
        "verifier": "mine.py:broken",
        "evaluation.num_samples": 0,
        "machine.dtype": "float32",
    }
    with pytest.raises(UserError, match=r"measuring test: 4 of 4 answers could not be scored.*raise max_unscored_share$"):
        evaluate("tiny-random", settings)
    row = evaluate("tiny-random", settings | {"verifier": "mine.py:wide"})["evaluation"][0]
    assert row["right_at"] == 20.0
    settings |= {"verifier": "mine.py:wide", "right_at": -5.0}
    assert evaluate("tiny-random", settings)["evaluation"][0]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"step_model": True, "learn.advantage": "vineppo"},
            r"step_model predicts a probability and needs scores in \[0, 1\], and .*: bring .* or leave step_model out",
        ),
        ({"implicit_reward.coef": 1.0}, "implicit_reward learns a probability and needs .* or leave implicit_reward out"),
        ({"curriculum.method": "weakness"}, "curriculum takes 1 - reward for a failure and needs .* or leave curriculum out"),
    ],
)
def test_what_needs_scores_from_0_to_1_refuses_the_first_one_outside_in_a_sentence(small, mine, tmp_path, changes, said):
    with pytest.raises(UserError, match=f"practice step 1: .*{said}"):
        small(tmp_path / "run", mine("wide") | {"warm_start.steps": 0} | changes)
