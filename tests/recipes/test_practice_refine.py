"""Practice on attempts that are revised, from the command to the report."""

import itertools
import json

import pytest
from run_outputs import assert_resumes, assert_same, attempts_of, practised

from etude.cli import main
from etude.engine.completion import Completion
from etude.recipes.estimate import estimate
from etude.recipes.practice import Loop, practice
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.refinement import CHECK, Refinement
from etude.rollouts.revising import refine_metrics
from etude.rollouts.sampler import TimedJudge
from etude.settings.configuration import find_configuration
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.parse import parse_practice

REFINE = {"rollout.search.method": "refine"}
WAYS = {
    "verifier": REFINE,
    "fixed": REFINE | {"rollout.refine.feedback": "fixed", "learn.turn_discount": 0.5, "learn.minibatches_per_epoch": 2},
    "imitation": REFINE | {"learn.method": "imitation", "rollout.refine.turns": 3},
    "random": REFINE | {"reward": "random", "kl_penalty.kl_coef": 0.01},
}


@pytest.fixture(scope="module", params=WAYS)
def run(request, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    small(folder, WAYS[request.param])
    return folder, WAYS[request.param]


def test_one_turn_is_plain_practice_to_the_byte(small, finished, tmp_path):
    small(tmp_path / "run", REFINE | {"rollout.refine.turns": 1, "learn.turn_discount": 0.3})
    assert_same(tmp_path / "run", finished)


def test_first_turns_are_those_of_plain_practice(run, finished):
    plain, found = ([row for row in attempts_of(folder) if row["step"] == 1] for folder in (finished, run[0]))
    assert [row["key"] for row in found] == [row["key"] for row in plain]
    assert [row["turns"][0]["text"] if "turns" in row else row["text"] for row in found] == [row["text"] for row in plain]


def test_what_is_kept_of_attempts_is_what_the_metrics_say(run):
    folder, options = run
    for metrics in practised(folder):
        rows = [row for row in attempts_of(folder) if row["step"] == metrics["step"]]
        revised = [row["turns"] for row in rows if "turns" in row]
        assert len(rows) == 24 and metrics["revised"] == len(revised) / 24
        assert metrics["sampled_tokens"] == sum(row["tokens"] for row in rows) == pytest.approx(24 * metrics["completion_tokens"])
        assert metrics["judged"] in (0, 24 + sum(len(turns) - 1 for turns in revised))
        assert metrics["score"] == pytest.approx(sum(row["score"] for row in rows) / 24)
        first = [row["turns"][0]["score"] if "turns" in row else row["score"] for row in rows]
        assert metrics["score_first"] == pytest.approx(sum(first) / 24)
        for turns in revised:
            assert sum(turn["tokens"] for turn in turns) in {row["tokens"] for row in rows}
            assert turns[-1]["told"] is None and all(turn["told"] for turn in turns[:-1])
            if "fixed" in options.values():
                assert [turn["told"] for turn in turns] == [CHECK, None]
        assert metrics["entropy"] == pytest.approx(
            -sum(row["mean_logprob"] * row["tokens"] for row in rows) / sum(row["tokens"] for row in rows)
        )
    assert any(metrics["revised"] > 0 for metrics in practised(folder))
    assert any("policy_loss" in metrics or "imitate_loss" in metrics for metrics in practised(folder))


def test_nobody_is_told_what_is_right(run):
    for row in attempts_of(run[0]):
        for turn in row.get("turns", [])[:-1]:
            assert f"'{row['answer']}'" not in turn["told"] or turn["text"] == row["answer"]


@pytest.mark.parametrize("place", ["in the middle of a revision", "behind one that is kept"])
def test_a_run_that_was_killed_resumes_to_the_same_bytes(run, small, tmp_path, killed, killed_behind_step_3, place):
    folder, options = run
    calls = itertools.count(1)
    in_a_revision = killed(TimedJudge, "__call__", lambda *_: next(calls) == 3)
    killing = in_a_revision if place.startswith("in") else killed_behind_step_3
    assert_resumes(small, options | {"save_steps": 3}, tmp_path, killing, folder)


def test_judging_meanwhile_changes_nothing(small, tmp_path):
    for name, meanwhile in (("meanwhile", True), ("afterwards", False)):
        small(tmp_path / name, REFINE | {"async_verifiers": meanwhile, "steps": 2})
    assert_same(tmp_path / "meanwhile", tmp_path / "afterwards")


def test_practice_in_turns_raises_the_accuracy_and_puts_more_right(tmp_path):
    result = practice("tiny", REFINE | {"machine.dtype": "float32"}, run=tmp_path / "run")
    accuracy = {row["model"]: row["accuracy"] for row in result["evaluation"]}
    assert accuracy["practice"] > accuracy["warm_start"] + 0.1
    rows = practised(tmp_path / "run")
    early, late = (sum(row["corrected"] for row in part) / len(part) for part in (rows[:10], rows[-10:]))
    assert late > early + 0.1


def test_metrics_of_turns_by_hand():
    """Put right, left wrong, right at once, put wrong by fixed words, out of room with a score and without."""
    attempt = Attempt.of((1,), Completion((2, 3), (-1.0, -1.0), "", "stop", 0, 0))
    scores = [(0.0, 1.0), (0.5, 0.0), (1.0,), (1.0, 0.0), (0.0,), (None,)]
    attempts = tuple(Attempt(**{**vars(attempt), "turns": len(own)}) for own in scores)
    rewards = [Reward(own[-1], turn_scores=own if len(own) > 1 else ()) for own in scores]
    found = refine_metrics([Group(Task("?"), attempts)], [rewards], Refinement())
    assert found == {
        "score_first": 2.5 / 5,
        "revised": 3 / 6,
        "corrected": 1 / 2,
        "spoiled": 1.0,
        "out_of_room": 2 / 6,
        "sampled_tokens": 12,
    }
    alone = refine_metrics([Group(Task("?"), attempts[2:3])], [rewards[2:3]], Refinement())
    assert (alone["corrected"], alone["spoiled"], alone["out_of_room"]) == (None, None, 0.0)


def test_the_report_shows_turns(run):
    page = (run[0] / "report.html").read_text()
    data = json.loads(page.split('id="attempts-data"')[1].split(">", 1)[1].split("</script>")[0])
    turns = [attempt["turns"] for attempt in data[0]["attempts"] if attempt["turns"]]
    assert turns and all(len(own) > 1 and own[0]["told"] and not own[-1]["told"] for own in turns)
    assert "Refinement (share)" in page


def test_an_estimate_is_of_attempts_with_all_their_turns(monkeypatch):
    seen, rollout = [], Loop.rollout

    def spy(self, *given):
        seen.append(rollout(self, *given))
        return seen[-1]

    monkeypatch.setattr(Loop, "rollout", spy)
    overrides = ["--search", "refine", "--rollout.refine.turns", "3", "--n", "60", "--evaluation.n", "20", "--warm_start.steps", "1"]
    settings = parse_practice(find_configuration("practice", "tiny"), overrides)
    assert estimate(settings, "tiny", None).practice_seconds > 0
    (batch,) = seen
    assert all(attempt.turns == 3 or len(attempt.tokens) > 150 for group in batch.groups for attempt in group.attempts)
    assert {reward.score for row in batch.rewards for reward in row} == {0.0, 1.0}


def test_a_dry_run_says_how_many_turns(capsys):
    given = ["practice", "tiny", "--search", "refine", "--n", "60", "--evaluation.n", "20", "--warm_start.steps", "1", "--dry-run"]
    assert main(given) == 0
    assert "5120 attempts of at most 2 turns of at most 4 tokens" in capsys.readouterr().out
