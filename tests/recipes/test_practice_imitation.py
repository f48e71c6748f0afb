"""Practice that imitates its own right attempts: STaR with rationalisation, and steps that begin from the first model again (ReST-EM)."""

import pytest
import torch
from run_outputs import assert_resumes, attempts_of, practised

from etude.learn.example import demonstration
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import negative_log_likelihood
from etude.recipes.practice import practice

STAR = {
    "learn.method": "imitation",
    "rationalize": True,
    "rationalize.hint": " {answer}",
    "learn.reset_to_initial_each_step": True,
    "learn.include_solved_groups": True,
}


def test_tasks_that_nobody_got_right_are_tried_again_with_the_answer_shown(small, tmp_path):
    small(tmp_path / "run", STAR)
    rows, attempts = practised(tmp_path / "run"), attempts_of(tmp_path / "run")
    shown = [row for row in attempts if row.get("view") == "hint"]
    assert shown and len(shown) == sum(row["rationalize/attempts"] for row in rows)
    assert sum(row["score"] == 1.0 for row in shown) == sum(row["rationalize/right"] for row in rows)
    assert any(row["rationalize/right"] for row in rows)
    assert any(row.get("imitate_loss", 0) > 0 for row in rows) and not any("policy_loss" in row for row in rows)
    for row in shown:
        own = [each for each in attempts if (each["step"], each["task"]) == (row["step"], row["task"]) and "view" not in each]
        assert len(own) == 4 and not any(each["score"] == 1.0 for each in own)
    for row in rows:  # what is said of the policy is of what it wrote without help
        own = [each["score"] for each in attempts if each["step"] == row["step"] and "view" not in each]
        assert row["score"] == pytest.approx(sum(own) / len(own))


def test_a_run_of_star_that_was_killed_resumes_to_the_same_bytes(small, tmp_path, killed_behind_step_3):
    assert_resumes(small, STAR | {"save_steps": 3}, tmp_path, killed_behind_step_3)


def test_answers_that_were_shown_say_nothing_of_how_hard_a_task_is(small, tmp_path):
    small(tmp_path / "run", STAR | {"curriculum.method": "weakness", "steps": 1})
    (step,), attempts = practised(tmp_path / "run"), attempts_of(tmp_path / "run")
    own = [row["score"] for row in attempts if "view" not in row]  # four at each of six tasks
    assert len(own) == 24 < len(attempts) and step["curriculum/failing"] == pytest.approx((24 - sum(own)) / 4 / 8 + 1 / 8)


def test_a_learner_that_restarts_learns_again_what_it_learned_first(model_of):
    learner = Learner(
        model_of("llama"),
        OptimizerSettings(learning_rate=1e-2, warmup_steps=2),
        [Stream("imitate", negative_log_likelihood)],
        restarts=True,
    )
    before = [parameter.detach().clone() for parameter in learner.parameters]
    examples = [demonstration((5, 6), (7, 8))]
    first = [learner.update(examples) for _ in range(3)]
    learner.restart()
    assert all(torch.equal(now, was) for now, was in zip(learner.parameters, before, strict=True))
    assert [learner.update(examples) for _ in range(3)] == first


def test_practice_ends_with_the_step_that_spends_the_budget(small, tmp_path):
    small(tmp_path / "run", {"token_budget.tokens": 150, "steps": 20})
    spent = [row["sampled_tokens"] for row in practised(tmp_path / "run")]
    assert sum(spent) >= 150 > sum(spent[:-1])


def test_practice_by_star_raises_the_accuracy(tmp_path):
    options = STAR | {"rollout.tasks_per_step": 100, "steps": 6, "learn.minibatches_per_epoch": 8, "learn.epochs": 3}
    result = practice("tiny", options | {"machine.dtype": "float32"}, run=tmp_path / "run")
    (pair,) = [pair for pair in result["paired"] if (pair["first"], pair["second"]) == ("warm_start", "practice")]
    assert pair["difference"] > 0.1 and pair["p_value"] < 1e-3
