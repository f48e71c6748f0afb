from statistics import fmean

import pytest

from etude.callbacks.vote_calibration import VoteCalibrationSettings
from etude.errors import UserError
from etude.rewards.majority_vote import NEVER, MajorityVoteReward, MajorityVoteSettings, calibrated_vote_share
from etude.tasks.task import Task

TASK, OTHER = Task("3 + 4?", verifier="numeric"), Task("5 + 4?", verifier="numeric")


def scores(texts, task=TASK, **how):
    return [reward.score for reward in MajorityVoteReward(MajorityVoteSettings(**how)).judge([(text, task) for text in texts])]


def test_the_majority_answer_scores_1_and_no_answer_scores_0():
    assert scores(["7", "8", "I think 7.", "who knows"]) == [1.0, 0.0, 1.0, 0.0]
    assert scores(["none", "nothing"]) == [0.0, 0.0]


def test_soft_scores_are_shares_of_all_attempts():
    assert scores(["7", "8", "I think 7.", "who knows"], score="soft") == [0.5, 0.25, 0.5, 0.0]


def test_votes_are_counted_per_task_in_any_order():
    majority = MajorityVoteReward(MajorityVoteSettings())
    pairs = [("7", TASK), ("9", OTHER), ("7", TASK), ("8", OTHER), ("9", OTHER)]
    assert [reward.score for reward in majority.judge(pairs)] == [1.0, 1.0, 1.0, 0.0, 1.0]
    assert majority.counts == {"agreement_tasks": 2, "agreement_abstained": 0}


def test_too_little_agreement_is_unscored_and_counted():
    majority = MajorityVoteReward(MajorityVoteSettings(min_vote_share=0.5))
    agreed, split = [("7", TASK), ("7", TASK), ("8", TASK), ("6", TASK)], [("9", OTHER), ("8", OTHER), ("7", OTHER)]
    rewards = majority.judge([*agreed, *split])
    assert [reward.score for reward in rewards] == [1.0, 1.0, 0.0, 0.0, None, None, None]
    assert rewards[-1].message == "too few attempts agree: 0.33 of them at most, 0.50 are asked for"
    assert majority.counts == {"agreement_tasks": 2, "agreement_abstained": 1}


def test_majority_votes_ignore_the_gold_answer():
    known = Task("3 + 4?", answer="8", verifier="numeric")
    assert scores(["7", "7", "8"], known) == scores(["7", "7", "8"]) == [1.0, 1.0, 0.0]


def test_the_trusted_vote_share_is_the_smallest_with_the_target_precision():
    found = [(0.25, False), (0.25, False), (0.5, True), (0.5, False), (0.75, True), (1.0, True)]
    for accuracy, least in [(0.0, 0.25), (0.5, 0.25), (0.7, 0.5), (0.8, 0.75), (1.0, 0.75)]:
        share = calibrated_vote_share(found, 0.0, accuracy)
        assert share == least
        assert fmean(is_right for own, is_right in found if own >= share) >= accuracy
    assert calibrated_vote_share(found, 0.9, 0.5) == 1.0
    assert calibrated_vote_share([(1.0, False)], 0.0, 0.5) == calibrated_vote_share([], 0.0, 0.5) == NEVER


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MajorityVoteSettings(min_vote_share=1.5), r"majority_vote.min_vote_share must be in \[0, 1\], got 1.5"),
        (lambda: VoteCalibrationSettings(4, target_precision=-0.1), r"vote_calibration.target_precision must be in \[0, 1\], got -0.1"),
        (lambda: VoteCalibrationSettings(-1), "vote_calibration.n must be at least 1, got -1"),
        (lambda: VoteCalibrationSettings(4, every=0), "vote_calibration.every must be at least 1, got 0"),
    ],
)
def test_a_share_outside_0_to_1_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
