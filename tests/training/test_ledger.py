"""The ledger gives back what was put into it, to the bit, and says where it can't."""

import gzip
import json
import math
from dataclasses import replace

import pytest

from etude.callbacks.vote_calibration import VoteCalibration, VoteCalibrationSettings
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.ledger import Ledger

TASKS = [Task("What is 2 + 2?", "4", metadata={"n": 1}), Task("What is 3 + 3?", "6")]


def sampled(step: int = 12) -> RolloutBatch:
    groups, rewards = [], []
    for task in TASKS:
        found = [Completion((5 + i, 2), (-1 / 3 - i, -math.pi), f"\u2028é\n{i}", "stop", key=2**63 + i, policy_version=3) for i in range(3)]
        attempts = [Attempt.of((7, 8, 9), completion) for completion in found]
        groups.append(Group(task, (replace(attempts[0], turns=2, before=("4", "no")), *attempts[1:])))
        rewards.append([Reward(1.0, {"parsable": 1.0}, (0.1, 0.2), turn_scores=(None, 1.0)), Reward(0.0, message="no", words="I read 5")])
        rewards[-1].append(Reward(None, message="timed out"))
    metrics, seconds = {"judged": 6, "timed_out": 2, "crashed": 0}, {"rollout_seconds": 1 / 3, "feedback_seconds": 0.0}
    return RolloutBatch(step, groups, rewards, metrics, seconds, notes={"vote_calibration": {"min_share": 1 / 3}})


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger")
    ledger.write(sampled())
    return ledger


def test_a_ledger_step_reads_back_the_same(ledger):
    assert ledger.read(12, TASKS) == replace(sampled(), is_from_ledger=True)
    assert ledger.read(13, TASKS) is None


def test_groups_of_different_sizes_read_back_the_same(ledger):
    whole = sampled(4)
    groups = [replace(whole.groups[0], attempts=whole.groups[0].attempts[:1]), whole.groups[1]]
    uneven = replace(whole, groups=groups, rewards=[whole.rewards[0][:1], whole.rewards[1]])
    ledger.write(uneven)
    assert ledger.read(4, TASKS) == replace(uneven, is_from_ledger=True)
    text = gzip.decompress((ledger.folder / "00004.jsonl.gz").read_bytes())
    (ledger.folder / "00004.jsonl.gz").write_bytes(gzip.compress(text.rsplit(b"\n", 1)[0]))  # an attempt is gone
    with pytest.raises(UserError, match=r"00004\.jsonl\.gz is damaged .*remove it and resume"):
        ledger.read(4, TASKS)


def test_steps_that_a_checkpoint_holds_are_forgotten(ledger):
    for step in (9, 100_000):
        ledger.write(sampled(step))
    assert ledger.steps() == [9, 12, 100_000]
    ledger.forget(12)
    assert ledger.steps() == [100_000]
    assert Ledger(ledger.folder.parent / "none").steps() == []


def test_attempts_at_other_tasks_are_not_taken(ledger):
    with pytest.raises(UserError, match="holds attempts at other tasks: resume with the data that the run began with"):
        ledger.read(12, TASKS[::-1])


def changed(ledger: Ledger, head: dict | str) -> None:
    """Give the kept step another first line."""
    _, *lines = gzip.decompress((ledger.folder / "00012.jsonl.gz").read_bytes()).decode().splitlines()
    first = head if isinstance(head, str) else json.dumps(head)
    (ledger.folder / "00012.jsonl.gz").write_bytes(gzip.compress("\n".join([first, *lines]).encode()))


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"not gzip", gzip.compress(b"", mtime=0), gzip.compress(b"{}\n{}", mtime=0), gzip.compress(b"{}\nnull\nnull", mtime=0)),
        None,
        {"counts": {}, "seconds": {"feedback_seconds": 0.0}},
        {"counts": {}, "seconds": {"rollout_seconds": "long"}},
        {"counts": 3, "seconds": {"rollout_seconds": 1.0}},
        {"counts": {}},
        "[]",
        "[" * 100_000,
    ],
)
def test_a_damaged_file_or_head_is_named_with_the_way_out(ledger, damage):
    path = next(ledger.folder.iterdir())
    whole = path.read_bytes()
    if isinstance(damage, dict | str):
        changed(ledger, damage)
    else:
        path.write_bytes(whole[:200] + bytes(255 - byte for byte in whole[200:260]) + whole[260:] if damage is None else damage)
    with pytest.raises(UserError, match=r"00012\.jsonl\.gz is damaged .*remove it and resume, which samples that step again"):
        ledger.read(12, TASKS)


def test_a_copy_that_a_program_left_beside_the_steps_is_no_step(ledger):
    for name in ("00012 (conflicted copy).jsonl.gz", "notes.jsonl.gz", "²²²²².jsonl.gz"):
        (ledger.folder / name).write_bytes(b"x")
    assert ledger.steps() == [12]
    ledger.forget(12)
    assert ledger.steps() == [] and len(list(ledger.folder.iterdir())) == 3


def test_a_step_of_an_older_version_has_its_counts_under_the_names_of_now(ledger):
    changed(ledger, {"counts": {"judged": 6, "agreement_min_share": 0.25}, "seconds": {"explore_seconds": 1.0}})
    batch = ledger.read(12, TASKS)
    assert (batch.metrics, batch.notes) == ({"judged": 6, "vote_calibration/min_vote_share": 0.25}, {})
    assert batch.seconds == {"rollout_seconds": 1.0}
    calibration = VoteCalibration(VoteCalibrationSettings(n=1))
    assert calibration.before_update(batch) == {"vote_calibration/min_vote_share": 0.25} and calibration.share == 0.25
