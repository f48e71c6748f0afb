"""Rewards of any range, and from where on one is right."""

import pytest

from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.reward import Reward, turns_right
from etude.tasks.task import Task
from etude.training.ledger import _reward

MINE = """
import math
from etude.tasks.reward import Reward

def graded(text, task):
    if text == "nan":
        return math.nan
    return Reward(float(text)) if text.startswith("+") else float(text)

graded.right_at = 15
"""


@pytest.mark.parametrize(
    ("score", "right_at", "is_right"),
    [(1.0, 1.0, True), (0.99, 1.0, False), (2.15, 1.0, True), (14.0, 15.0, False), (-1.0, -2.0, True), (None, -2.0, False)],
)
def test_an_attempt_is_right_from_its_verifiers_threshold_on(score, right_at, is_right):
    assert Reward(score, right_at=right_at).is_right is is_right


def test_turns_are_right_by_the_same_threshold():
    assert turns_right(Reward(20.0, turn_scores=(None, 3.0, 20.0), right_at=15.0)) == (False, False, True)


def test_scores_and_the_threshold_come_through_the_childs_pipe_and_a_setting_goes_before_the_verifiers_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    pairs = [(text, Task("q", verifier=f"{tmp_path / 'mine.py'}:graded")) for text in ("-5", "30", "15", "nan", "+30")]
    with VerifierReward() as verifiers:
        rewards = verifiers.judge(pairs)
        assert verifiers.counts["crashed"] == 0
        verifiers.right_at = 20.0
        others = verifiers.judge(pairs)
    assert [reward.score for reward in rewards] == [-5.0, 30.0, 15.0, None, 30.0]
    assert [reward.right_at for reward in rewards] == [15.0, 15.0, 15.0, 1.0, 1.0]  # a Reward brings its own
    assert rewards[3].message == "the verifier returned nan, which is no score"
    assert [reward.is_right for reward in others] == [False, True, False, False, True]


def test_a_reward_is_kept_in_the_ledger_with_its_threshold_and_one_of_before_thresholds_is_right_from_one_on():
    row = Reward(17.5, right_at=15.0).to_json()
    assert _reward(row) == Reward(17.5, right_at=15.0)
    del row["right_at"]
    assert _reward(row).is_right and not _reward(row | {"score": 0.5}).is_right
