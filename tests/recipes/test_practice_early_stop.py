"""Practice in which groups that seem decided get no second half."""

import gzip
import json
from itertools import groupby

import pytest

from etude.errors import UserError
from etude.files import read_jsonl
from etude.rollouts.settings import RolloutSettings

STOP = {"rollout.early_stop_groups": "either", "rollout.num_samples": 6}


def groups_of(folder, step):
    rows = [json.loads(line) for line in gzip.decompress((folder / "attempts" / f"{step:05d}.jsonl.gz").read_bytes()).splitlines()]
    return {key: [(row["key"], row["text"], row["score"]) for row in group] for key, group in groupby(rows, key=lambda row: row["task"])}


@pytest.fixture(scope="module")
def stopped(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping") / "run"
    small(folder, STOP)
    return folder


def test_attempts_are_those_of_a_run_that_never_stops_up_to_where_a_group_is_decided(small, stopped, tmp_path):
    small(tmp_path / "run", STOP | {"rollout.early_stop_groups": "never", "steps": 1})
    plain, found = groups_of(tmp_path / "run", 1), groups_of(stopped, 1)
    decided = {key for key, group in plain.items() if len({score for _, _, score in group[:3]}) == 1}
    assert decided and decided != plain.keys()
    assert found == {key: group[:3] if key in decided else group for key, group in plain.items()}


def test_metrics_are_of_the_first_halves_and_say_how_many_attempts_were_made(stopped):
    row = next(row for row in read_jsonl(stopped / "metrics.jsonl") if row["phase"] == "practice")
    groups = groups_of(stopped, 1).values()
    first = [score for group in groups for _, _, score in group[:3]]
    assert row["score"] == pytest.approx(sum(first) / len(first))
    assert row["attempts"] == row["judged"] == sum(map(len, groups)) < 36


@pytest.mark.parametrize("reward", ["random", "verifier"])
def test_a_killed_run_that_stops_early_resumes_to_the_same_bytes(small, tmp_path, killed_behind_step_3, reward):
    overrides = STOP | {"reward": reward, "n": 15}
    small(tmp_path / "whole", overrides)
    with killed_behind_step_3:  # whose attempts are judged and kept, behind the checkpoint of step 2
        small(tmp_path / "run", overrides)
    small(tmp_path / "run", overrides, resume=True)
    for name in ("metrics.jsonl", "result.json", "model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_half_of_one_attempt_is_refused():
    with pytest.raises(UserError, match=r"rollout.early_stop_groups right judges by the first half of rollout.num_samples 3, .*4 or more"):
        RolloutSettings(num_samples=3, early_stop_groups="right")
    assert RolloutSettings(num_samples=2).early_stop_groups == "never"
