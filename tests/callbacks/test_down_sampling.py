"""Down-sampling keeps the attempts whose rewards differ most, and advantages compare these only."""

from itertools import combinations
from random import Random

import numpy as np
import pytest

from etude.callbacks.down_sampling import DownSampling, DownSamplingSettings, most_different
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.learn.settings import Learning
from etude.learn.update import advantages_of
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def batch_of(scores):
    group = Group(Task("?"), tuple(Attempt.of((1,), Completion((5, 6), (-1.0, -1.0), "", "stop", 0, 0)) for _ in scores))
    batch = RolloutBatch(1, [group], [[Reward(score) for score in scores]], {}, {})
    batch.begin_update()
    return batch


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_the_kept_set_has_the_largest_variance_of_all_sets(num):
    random = Random(num)
    for _ in range(100):
        scores = [random.choice([0.0, 0.25, 0.5, 1.0]) for _ in range(8)]
        most = max(np.var(each) for each in combinations(scores, num))
        assert np.var([scores[place] for place in most_different(scores, num)]) == pytest.approx(most)


def test_a_single_right_attempt_is_compared_with_as_many_wrong_ones_as_there_is_room_for():
    batch = batch_of([0.0, 0.0, 0.0, 1.0, 0.0, None])
    assert DownSampling(DownSamplingSettings(num_train=3)).before_update(batch) == {"down_sampling/kept": 0.5}
    assert [reward.score for reward in batch.shaped_rewards[0]] == [0.0, 0.0, None, 1.0, None, None]
    assert batch.masked == [[False, False, True, False, True, True]]
    advantages = [own[0] for own in advantages_of(batch, Learning(advantage="dr_grpo"))[0]]
    assert advantages == pytest.approx([-1 / 3, -1 / 3, 0, 2 / 3, 0, 0])
    assert [reward.score for reward in batch.rewards[0]] == [0.0, 0.0, 0.0, 1.0, 0.0, None]  # what is logged


def test_a_number_that_leaves_nothing_out_or_nothing_to_compare_is_refused():
    with pytest.raises(UserError, match="num_train must be 2 or more, got 1"):
        DownSamplingSettings(num_train=1)
    with pytest.raises(UserError, match=r"num_train is 8 of 8 attempts \(rollout.num_samples\)"):
        DownSampling(DownSamplingSettings(num_train=8)).check({"rollout.num_samples": 8})
