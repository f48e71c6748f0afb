import pytest

from etude.errors import UserError
from etude.rewards.random_score import RandomReward
from etude.tasks.task import Task

PAIRS = [(f"text {i % 7}", Task(f"question {i % 5}", "answer")) for i in range(2_000)]


def scores(seed, rate, pairs=PAIRS):
    return [reward.score for reward in RandomReward(seed, rate).judge(pairs)]


def test_random_scores_have_their_rate_and_repeat():
    assert sum(scores(0, 0.3)) / 2_000 == pytest.approx(0.3, abs=0.04)
    assert scores(0, 0.3) == scores(0, 0.3) != scores(1, 0.3)
    assert set(scores(0, 0.0)) == {0.0} and set(scores(0, 1.0)) == {1.0}


def test_equal_texts_at_one_task_differ_by_their_place():
    assert set(scores(0, 0.5, [PAIRS[0]] * 50)) == {0.0, 1.0}


def test_a_rate_outside_its_range_is_refused():
    with pytest.raises(UserError, match=r"rate must be in \[0, 1\], got 1.5"):
        RandomReward(0, 1.5)
