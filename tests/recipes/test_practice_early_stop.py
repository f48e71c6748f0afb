"""Practice in which groups that seem decided get no second half."""

from itertools import groupby

import pytest
from run_outputs import assert_resumes, attempts_of, practised

from etude.errors import UserError
from etude.rollouts.settings import RolloutSettings

STOP = {"rollout.early_stop_groups": "either", "rollout.num_samples": 6}


def groups_of(folder):
    rows = groupby(attempts_of(folder), key=lambda row: row["task"])
    return {key: [(row["key"], row["text"], row["score"]) for row in group] for key, group in rows}


def test_attempts_are_those_of_a_run_that_never_stops_up_to_where_a_group_is_decided(small, tmp_path):
    small(tmp_path / "never", STOP | {"rollout.early_stop_groups": "never", "steps": 1})
    small(tmp_path / "stopped", STOP | {"steps": 1})
    plain, found = groups_of(tmp_path / "never"), groups_of(tmp_path / "stopped")
    decided = {key for key, group in plain.items() if len({score for _, _, score in group[:3]}) == 1}
    assert decided and decided != plain.keys()
    assert found == {key: group[:3] if key in decided else group for key, group in plain.items()}
    (row,), groups = practised(tmp_path / "stopped"), found.values()
    first = [score for group in groups for _, _, score in group[:3]]
    assert row["score"] == pytest.approx(sum(first) / len(first))
    assert row["attempts"] == row["judged"] == sum(map(len, groups)) < 36


@pytest.mark.parametrize("reward", ["random", "verifier"])
def test_a_killed_run_that_stops_early_resumes_to_the_same_bytes(small, tmp_path, killed_behind_step_3, reward):
    assert_resumes(small, STOP | {"reward": reward, "n": 15}, tmp_path, killed_behind_step_3)


def test_a_half_of_one_attempt_is_refused():
    with pytest.raises(UserError, match=r"rollout.early_stop_groups right judges by the first half of rollout.num_samples 3, .*4 or more"):
        RolloutSettings(num_samples=3, early_stop_groups="right")
    assert RolloutSettings(num_samples=2).early_stop_groups == "never"
