"""What an attempt's length does to the advantage it earns, and to nothing else."""

from types import SimpleNamespace

import pytest
from small_examples import anchored, examples_of

from etude.callbacks.overlong_penalty import OverlongPenalty, OverlongPenaltySettings, over_length
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.learn.advantages import ADVANTAGES
from etude.learn.training_examples import token_advantages
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.parse import parse_practice


def attempt(length: int, finish: str = "stop") -> Attempt:
    return Attempt.of((1, 2), Completion(tuple(range(3, 3 + length)), (-0.5,) * length, "x", finish, key=0, policy_version=0))


GROUP = Group(Task("q", "a"), (attempt(8), attempt(13), attempt(16, "length")))
REWARDS = [[Reward(1.0), Reward(1.0), Reward(0.0)]]


def controlled(rewards, **settings):
    """The step's batch as the callback leaves it, and its metrics; answers have 16 tokens at most."""
    penalty, batch = OverlongPenalty(OverlongPenaltySettings(**settings)), RolloutBatch(1, [GROUP], rewards, {}, {})
    penalty.start(SimpleNamespace(settings=SimpleNamespace(rollout=SimpleNamespace(max_new_tokens=16))))
    batch.begin_update()
    metrics = penalty.before_update(batch)
    assert batch.rewards == rewards  # what is logged stays
    return batch, {name.removeprefix("overlong_penalty/"): value for name, value in metrics.items()}


def test_the_penalty_by_hand():
    paper = {10: 0.0, 12: 0.0, 13: 0.25, 14: 0.5, 16: 1.0}  # eq. 13 with L_max 16, L_cache 4, signs turned
    assert {length: over_length(length, 16, 4) for length in paper} == paper
    assert over_length(16, 16, 0) == 0.0


def test_advantages_go_by_lowered_scores_and_rewards_keep_theirs():
    batch, metrics = controlled(REWARDS, buffer_tokens=4)
    assert [reward.score for reward in batch.shaped_rewards[0]] == [1.0, 1.0, 0.0]
    (weights,) = token_advantages([GROUP], batch.shaped_rewards, "dr_grpo")
    mean = (1 + 0.75 - 1) / 3
    assert [own[0] for own in weights] == pytest.approx([1 - mean, 0.75 - mean, -1 - mean])
    assert metrics == {"penalised": pytest.approx(2 / 3), "penalty": pytest.approx(1.25 / 3), "masked": 0.0}
    batch, _ = controlled([[Reward(1.0), Reward(0.0), Reward(None)]], buffer_tokens=4)
    (row,) = batch.shaped_rewards
    assert row[2] == Reward(None) and token_advantages([GROUP], [row], "dr_grpo")[0][2] == (0.0,) * 16


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_at_weight_0_rewards_and_examples_are_as_they_were(advantage):
    batch, metrics = controlled(REWARDS, buffer_tokens=4, penalty_weight=0.0)
    assert batch.shaped_rewards == REWARDS and batch.masked == [[False] * 3] and not any(metrics.values())
    assert examples_of([GROUP], batch.shaped_rewards, advantage, masked=batch.masked) == examples_of([GROUP], REWARDS, advantage)


def test_of_right_answers_shorter_ones_are_better_where_length_costs():
    alike = [[Reward(1.0)] * 3]
    assert examples_of([GROUP], alike) == [[]]
    batch, _ = controlled(alike, buffer_tokens=4, penalty_weight=0.5)
    (examples,) = examples_of([GROUP], batch.shaped_rewards)
    advantages = [example.policy[0] for example in examples]
    assert advantages == sorted(advantages, reverse=True) and sum(advantages) == pytest.approx(0)


def test_what_was_cut_off_enters_no_loss_and_counts_in_its_group():
    batch, metrics = controlled(REWARDS, mask_truncated_completions=True)
    assert batch.shaped_rewards == REWARDS and metrics["masked"] == pytest.approx(1 / 3)
    (examples,) = examples_of([GROUP], batch.shaped_rewards, masked=batch.masked, on_examples=anchored)
    assert [len(example.completion) for example in examples] == [8, 13]
    assert [example.policy[0] for example in examples] == pytest.approx([1 / 3, 1 / 3])  # the mean is that of all three


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"buffer_tokens": -1}, "overlong_penalty.buffer_tokens must be at least 0"),
        ({"buffer_tokens": 4, "penalty_weight": -0.5}, "overlong_penalty.penalty_weight must be 0 .none. or more, got -0.5"),
        ({"buffer_tokens": 4, "penalty_weight": float("nan")}, "overlong_penalty.penalty_weight must be 0 .none. or more, got nan"),
        ({"penalty_weight": 0.5}, "overlong_penalty changes nothing: set overlong_penalty.buffer_tokens, or mask_truncated_completions to"),
    ],
)
def test_wrong_settings_are_one_sentence(own, said):
    with pytest.raises(UserError, match=said):
        OverlongPenaltySettings(**own)


def test_advantages_by_steps_do_not_go_with_lowered_rewards():
    overrides = {"overlong_penalty.buffer_tokens": 4, "learn.advantage": "treerl", "rollout.search.method": "mcts"}
    with pytest.raises(UserError, match=r"lowers rewards of whole answers, and learn\.advantage treerl goes by what steps are worth"):
        parse_practice(find_configuration("practice", "tiny"), arguments_from(overrides))
