"""Practice on answers that the model makes of several of its own: without gold answers, abstaining, and into a collapse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from run_outputs import assert_resumes, attempts_of, practised

from etude.decoding.decode import decode
from etude.evaluation.report import write_report
from etude.tiny import letters

TAUGHT = {"reward": "self_training", "learn.method": "imitation"}
SINGLE = TAUGHT | {"self_training.decoding.method": "majority", "self_training.decoding.k": 1}


def groups_of(folder, step=1):
    """The attempts of a step, by task."""
    rows = [row for row in attempts_of(folder) if row["step"] == step]
    return [[row for row in rows if row["task"] == task] for task in dict.fromkeys(row["task"] for row in rows)]


@pytest.mark.parametrize("method", ["integrative", "self_reflection", "layer_candidates", "abstain", "integrative_original"])
def test_an_answer_by_any_method_is_learned_from_and_needs_no_gold_answers(small, letter_files, tmp_path, method):
    rows = [{"question": row["question"]} for row in letters("train", 60, seed=0)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"tasks.path": ["train.jsonl"], "warm_start.path": ["shown.jsonl"], "evaluation.path": ["test.jsonl"]}
    result = small(tmp_path / "run", files | TAUGHT | {"self_training.decoding.method": method, "self_training.decoding.k": 2, "steps": 2})
    assert result["feedback_counts"]["own_answers"] == 2 * 6
    for group in groups_of(tmp_path / "run"):
        own, samples = group[4:], group[:4]  # a method may give no answer
        assert [row["view"] for row in own] in ([], ["decoded"]) and not any("view" in row for row in samples)
        assert all(row["score"] in (0.0, None) for row in samples) and all(row["score"] in (1.0, None) for row in own)
        assert any(row["score"] == 1.0 for row in own) or all(row["score"] is None for row in group)


def test_with_one_sample_that_sample_is_learned_from(small, tmp_path):
    small(tmp_path / "run", SINGLE)
    for group in groups_of(tmp_path / "run"):
        assert group[-1]["text"] == group[0]["text"] and group[-1]["mean_logprob"] == group[0]["mean_logprob"]
        assert group[0]["score"] is None  # the same answer, which is learned from once


def test_a_single_sample_that_is_imitated_is_plain_self_training(small, tmp_path):
    one = SINGLE | {"rollout.num_samples": 1, "learn.include_solved_groups": True, "steps": 1}
    small(tmp_path / "run", one)
    small(tmp_path / "none", one | {"steps": 0})
    assert all([row["score"] for row in group] in ([None, 1.0], [None, None]) for group in groups_of(tmp_path / "run"))
    same = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("run", "none"))
    assert len(set(same)) == 2  # something was learned


def test_a_task_that_comes_twice_in_a_step_is_sampled_anew(small, tmp_path):
    small(tmp_path / "run", TAUGHT | {"n": 2, "steps": 1, "rollout.tasks_per_step": 6})
    rows = attempts_of(tmp_path / "run")
    assert len(rows) == 30 and len({row["key"] for row in rows if "view" not in row}) == 24


def test_what_is_observed_is_of_the_samples_and_what_is_counted_of_all(small, tmp_path):
    small(tmp_path / "run", TAUGHT)
    for row in practised(tmp_path / "run"):
        drawn = row["completion_tokens"] * 24
        assert row["sampled_tokens"] > drawn  # joint answers too
        assert row["own_answers"] == 6 and row["groups"] == 6
        assert row["score"] is None and not any(name.startswith("pass_at_") for name in row) and 0 <= row["part_vote_share"] <= 1


def test_an_answer_that_is_not_sure_is_not_learned_from(small, tmp_path):
    result = small(tmp_path / "run", TAUGHT | {"self_training.min_share": 1.0, "steps": 2})
    counts = result["feedback_counts"]
    assert 0 < counts["own_answers_abstained"] <= counts["own_answers"] == 12
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert "Pseudo-labels" in page and "left out for low agreement" in page and "groups with a right attempt" not in page
    abstained = [group for group in groups_of(tmp_path / "run") if all(row["score"] is None for row in group)]
    assert abstained and all("teaches nothing" in row["message"] for row in abstained[0])


def test_preference_learns_from_an_answer_against_what_differs_from_it(small, tmp_path):
    small(tmp_path / "run", TAUGHT | {"learn.method": "preference"})
    rows = practised(tmp_path / "run")
    assert all(row["pairs"] == sum(any(each["score"] == 0 for each in group) for group in groups) for row, groups in
               ((row, groups_of(tmp_path / "run", row["step"])) for row in rows))  # fmt: skip
    assert sum(row["pairs"] for row in rows) > 0


def test_samples_grow_alike_when_joint_answers_are_imitated(small, tmp_path):
    small(tmp_path / "run", TAUGHT | {"steps": 12, "learn.optimizer.learning_rate": 0.003})
    shares = [row["vote_share"] for row in practised(tmp_path / "run")]
    assert sum(shares[-3:]) > sum(shares[:3]) + 0.3


def test_a_killed_run_ends_as_one_that_was_not(small, tmp_path, killed_behind_step_3):
    assert_resumes(small, TAUGHT, tmp_path, killed_behind_step_3)


def test_one_answer_to_everything_raises_the_alarm(small, tmp_path, monkeypatch):
    def alike(*given, **named):
        found = decode(*given, **named)
        return [replace(each, answer=found[0].answer) for each in found]

    monkeypatch.setattr("etude.training.self_training.decode", alike)
    how = {"learn.optimizer.learning_rate": 0.01, "rollout.num_samples": 8, "learn.include_solved_groups": True}
    result = small(tmp_path / "run", TAUGHT | how | {"steps": 24, "collapse.window": 3, "collapse.action": "stop"})
    assert result["collapse"]["step"] == len(practised(tmp_path / "run")) < 24
