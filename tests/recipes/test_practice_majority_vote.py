"""Practice on the majority vote of a task's attempts: without gold answers, with a few labelled tasks, and into a collapse."""

import json
from pathlib import Path

import pytest
import torch
from run_outputs import Listening, assert_resumes, attempts_of, practised
from safetensors.torch import load_file

from etude.callbacks.vote_calibration import without_labelled
from etude.errors import UserError
from etude.evaluation.report import write_report
from etude.recipes.practice import Loop
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tiny import letters

PROBED = {"reward": "majority_vote", "vote_calibration.n": 8, "vote_calibration.every": 2, "vote_calibration.target_precision": 0.2}
CONSTANT = {
    "reward": "majority_vote",
    "rollout.max_new_tokens": 1,
    "rollout.num_samples": 8,
    "warm_start.steps": 12,
    "learn.optimizer.learning_rate": 0.01,
    "steps": 20,
    "collapse.window": 3,
}
"""One letter to any question is the easiest to agree on."""


def test_scores_are_the_majoritys_and_need_no_answers(small, letter_files, tmp_path):
    rows = [{"question": row["question"]} for row in letters("train", 60, seed=0)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"tasks.path": ["train.jsonl"], "warm_start.path": ["shown.jsonl"], "evaluation.path": ["test.jsonl"]}
    result = small(tmp_path / "run", files | {"reward": "majority_vote", "rollout.max_new_tokens": 4})
    steps = practised(tmp_path / "run")
    assert all(row["score"] == pytest.approx(row["vote_share"]) for row in steps)
    assert result["feedback_counts"]["agreement_tasks"] == 4 * 6


def test_labelled_tasks_say_which_majorities_are_believed(small, tmp_path):
    small(tmp_path / "run", PROBED)
    rows = practised(tmp_path / "run")
    shares = [row["vote_calibration/min_vote_share"] for row in rows]
    assert shares[0] == shares[1] and shares[2] == shares[3]  # asked anew every second step
    assert all(0.25 <= share <= 2.0 for share in shares)
    spent = [row["sampled_tokens"] - row["completion_tokens"] * 24 for row in rows]
    assert spent[0] > 0 and spent[2] > 0 and spent[1] == spent[3] == pytest.approx(0)
    asked = [task.key for task in load_tasks(TaskSource(function="etude.tiny:letters"), split="train", n=8, seed=0)]
    assert not {row["task"] for row in attempts_of(tmp_path / "run")} & set(asked)


def test_no_labelled_task_was_shown_and_none_is_practised_on():
    items = [(Task(name), (place,)) for place, name in enumerate("aabcb")]
    labelled, left = without_labelled(items, 2, shown={Task("a").key})
    assert [task.prompt for task, _ in labelled] == ["b", "c"] and [prompt for _, prompt in labelled] == [(2,), (3,)]
    assert [prompt for _, prompt in left] == [(0,), (1,)]
    assert without_labelled(items, 0, shown={Task("a").key}) == ([], items)


def test_labelled_tasks_are_asked_again_of_the_model_that_a_gate_brought_back(small, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.callbacks.gate.passes", lambda settings, before, now: False)
    gate = {"retention.probe": True, "retention.n": 4, "retention.text_tokens": 100, "gate.every": 1}
    small(tmp_path / "run", PROBED | gate | {"vote_calibration.every": 100})
    rows = practised(tmp_path / "run")
    assert len(rows) > 1 and all(row["sampled_tokens"] > row["completion_tokens"] * 24 for row in rows)


def test_one_answer_to_everything_raises_the_alarm_and_stops_practice(small, tmp_path):
    result = small(tmp_path / "run", CONSTANT | {"collapse.action": "stop"})
    steps, collapse = practised(tmp_path / "run"), result["collapse"]
    assert collapse["step"] == len(steps) < 20 and "constant" in collapse["signs"]
    assert collapse["now"]["constant_share"] > 0.5 > collapse["before"]["constant_share"]
    page = write_report([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert f"Signs of a collapse at step {collapse['step']}" in page and "practice was stopped" in page


def test_practice_rolls_back_to_what_was_sound_and_a_killed_run_does_too(small, tmp_path, killed):
    how = CONSTANT | {"collapse.action": "rollback", "collapse.window": 2, "save_steps": 3}
    result = small(tmp_path / "whole", how)
    steps, kept = practised(tmp_path / "whole"), tmp_path / "whole" / "checkpoints"
    held = max(int(path.name[5:]) for path in kept.glob("step-*") if path.name != f"step-{len(steps):05d}")
    assert result["collapse"]["step"] == len(steps) < 20 and held < len(steps) - 1
    for name in (f"step-{len(steps):05d}/model.safetensors", "../model/model.safetensors"):
        ends, begun = (load_file(path) for path in (kept / name, kept / f"step-{held:05d}/model.safetensors"))
        assert all(torch.equal(ends[key], begun[key]) for key in ends)
    assert_resumes(small, how, tmp_path, killed(Loop, "apply", lambda loop, step, decision: step == len(steps)), tmp_path / "whole")
    assert "practice was rolled back and stopped" in write_report([tmp_path / "whole"], tmp_path / "page.html").read_text()


def test_an_alarm_that_warns_changes_nothing(small, tmp_path):
    listening, short = Listening(), CONSTANT | {"steps": 8}
    warned = small(tmp_path / "warned", short, reporter=listening)
    off = small(tmp_path / "off", short | {"collapse": False})
    assert sum("collapse at step" in line for line in listening.said) == 1 and "collapse" in warned and "collapse" not in off
    assert {**warned, "collapse": None} == {**off, "collapse": None}


def test_as_many_labelled_tasks_as_there_are_tasks_are_refused(small, tmp_path):
    with pytest.raises(UserError, match=r"vote_calibration.n is 60, but there are only \d+ different tasks that no demonstration shows"):
        small(tmp_path / "run", PROBED | {"vote_calibration.n": 60})
