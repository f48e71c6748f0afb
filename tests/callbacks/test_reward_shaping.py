"""What is ordinary in a group counts less: by hand, with what never changes."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.reward_shaping import RewardShaping, RewardShapingSettings
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.learn.shaping import SHAPING, novelty, novelty_embedding, shaped, unlikeliness
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task

EMBEDDINGS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [2.0, 2.0], [-2.0, -2.0]])
"""Of six tokens, with mean 0."""


def group(*own, logprobs=None):
    logprobs = logprobs or [-1.0] * len(own)
    completions = [Completion(each, (value,) * len(each), "", "stop", 0, 0) for each, value in zip(own, logprobs, strict=True)]
    return Group(Task("?"), tuple(Attempt.of((1, 2), completion) for completion in completions))


def scores(name, own, rewards, weight=0.25):
    (found,) = shaped([own], [[Reward(score) for score in rewards]], name, weight, EMBEDDINGS)
    return [reward.score for reward in found]


def test_unlikely_right_attempts_earn_more_and_those_that_are_as_likely_share_their_ranks():
    assert unlikeliness(group((0,), (0,), (1,), logprobs=[-1.0, -1.0, -2.0]), EMBEDDINGS) == [pytest.approx(1.5 / 3)] * 2 + [0]
    own = group((0, 1), (2, 3), (4,), (5, 0), logprobs=[-0.1, -2.0, -1.0, -3.0])
    assert unlikeliness(own, EMBEDDINGS) == [3 / 4, 1 / 4, 2 / 4, 0]
    assert scores("unlikeliness", own, [1.0, 1.0, 0.0, 0.0]) == [1 - 0.25 * 3 / 4, 1 - 0.25 * 1 / 4, 0, 0]


def test_novelty_by_hand():
    own = group((0, 1, 2), (0, 1, 3), (4, 5, 4))
    assert novelty(own, EMBEDDINGS) == pytest.approx([1 / 3 / 2, 1 / 3 / 2, 0])
    assert scores("novelty", own, [1.0, 0.0, 1.0], 0.6) == pytest.approx([1 - 0.1, 0, 1])
    assert novelty(group((0,), (0,), (1,)), EMBEDDINGS) == pytest.approx([1 / 2, 1 / 2, 0])


def test_novelty_by_embedding_by_hand():
    own = group((0, 0), (0, 2), (1,))
    assert novelty_embedding(own, EMBEDDINGS) == pytest.approx([0.5**0.5 / 2, 0.5**0.5 / 2, 0])
    moved = EMBEDDINGS + torch.tensor([3.0, 7.0])
    assert novelty_embedding(own, moved) == pytest.approx(novelty_embedding(own, EMBEDDINGS), abs=1e-6)  # what all tokens have in common


@pytest.mark.parametrize("name", SHAPING)
def test_every_shaping_leaves_wrong_unscored_and_groups_without_signal_alone(name):
    own = group((0, 2), (0, 2), (1, 4), (3, 1), logprobs=[-0.1, -0.1, -1.0, -2.0])
    found = scores(name, own, [1.0, 0.0, None, 1.0])
    assert found[1:3] == [0.0, None] and 0.75 <= found[0] < found[3] <= 1
    for without in ([1.0] * 4, [0.0] * 4, [1.0, None, 1.0, 1.0]):
        assert scores(name, own, without) == without
    assert scores(name, own, [1.0, 0.0, 0.0, 1.0], weight=0.0) == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("name", SHAPING)
def test_every_shaping_follows_its_attempts_and_takes_a_lone_one(name):
    own = group((0, 1), (2, 3, 0), (0, 1, 4), logprobs=[-0.1, -0.5, -1.0])
    turned = replace(own, attempts=own.attempts[::-1])
    assert SHAPING[name](turned, EMBEDDINGS) == pytest.approx(SHAPING[name](own, EMBEDDINGS)[::-1])
    assert SHAPING[name](group((0, 1)), EMBEDDINGS) == [0.0]


def test_the_callback_shapes_what_advantages_come_from_and_leaves_the_logged_rewards():
    own, rewards = group((0, 1), (0, 1), (2, 3), (4, 5)), [Reward(1.0), Reward(0.0), Reward(1.0), Reward(0.0)]
    batch = RolloutBatch(1, [own], [rewards], {}, {})
    batch.begin_update()
    callback = RewardShaping(RewardShapingSettings("novelty", weight=0.6))
    embeddings = torch.nn.Embedding.from_pretrained(EMBEDDINGS)
    callback.start(SimpleNamespace(model=SimpleNamespace(get_input_embeddings=lambda: embeddings)))
    assert callback.before_update(batch) == {}
    assert [reward.score for reward in batch.shaped_rewards[0]] == pytest.approx([1 - 0.6 / 3, 0, 1, 0])
    assert batch.rewards == [rewards]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": "novel"}, "unknown reward_shaping.method 'novel'"),
        ({"method": "novelty", "weight": 1.5}, r"reward_shaping.weight must be in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_settings_are_told(wrong, message):
    with pytest.raises(UserError, match=message):
        RewardShapingSettings(**wrong)


def test_negative_rewards_are_never_raised_and_a_shift_of_all_rewards_changes_no_lead():
    own = group((0, 1), (2, 3), (4,), logprobs=[-0.1, -2.0, -1.0])  # how ordinary: 2/3, 0, 1/3
    assert scores("unlikeliness", own, [-5.0, 30.0, -1.0], 0.6) == pytest.approx([-5.0, 30.0, -1.0 - 0.6 / 3 * 4])
    shifted = scores("unlikeliness", own, [95.0, 130.0, 99.0], 0.6)
    assert shifted == pytest.approx([95.0, 130.0, 99.0 - 0.6 / 3 * 4])
