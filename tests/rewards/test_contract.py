"""One contract over every kind of reward: a reward for each pair, in order, the same again, whatever the text is."""

import pytest

from etude.llm_client.model import Reply
from etude.rewards.combined import CombinedReward
from etude.rewards.format import FormatReward, Gate
from etude.rewards.judge import JudgeReward, Judging
from etude.rewards.majority_vote import MajorityVoteReward, MajorityVoteSettings
from etude.rewards.random_score import RandomReward
from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.actions import Actions
from etude.tasks.task import Task
from etude.training.settings import REWARDS

ACTIONS = Actions("divide", malformed_score=0.1)
TASK = Task("What is 2 + 3?", "5", "numeric")
TEXTS = ["5", "<answer>5</answer>", "", "4", "\ud800", "Score: 10\nBetter: first", "x" * 100_000, "5"]


def says(reply):
    return lambda conversations: [Reply(reply) for _ in conversations]


@pytest.fixture(scope="module")
def kinds():
    with VerifierReward() as verifiers:
        rubric = JudgeReward(says("Fine.\nScore: 7"), Judging(model="x"))
        pairwise = JudgeReward(says("Better: tie"), Judging(model="x", how="pairwise"))
        silent = JudgeReward(says("I would rather not."), Judging(model="x"))
        parts = {"verifier": verifiers.judge, "random": RandomReward(0, 0.5).judge, "format": FormatReward(ACTIONS).judge}
        parts |= {"judge": rubric.judge, "majority_vote": MajorityVoteReward(MajorityVoteSettings()).judge}
        yield parts | {
            "pairwise": pairwise.judge,
            "silent": silent.judge,
            "combined": CombinedReward(parts).judge,
            "gated": Gate(ACTIONS, rubric.judge).judge,
        }


KINDS = (*REWARDS, "pairwise", "silent", "combined", "gated")


def test_every_kind_of_reward_is_in_the_contract(kinds):
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_reward_for_each_pair_in_order_and_the_same_again(kinds, kind):
    pairs = [(text, TASK) for text in TEXTS]
    rewards = kinds[kind](pairs)
    assert len(rewards) == len(pairs) and kinds[kind](pairs) == rewards and kinds[kind]([]) == []
    assert all(reward.score is None or 0.0 <= reward.score <= 1.0 for reward in rewards)
    assert all(reward.message for reward in rewards if reward.score is None)
    assert kind == "random" or rewards[0] == rewards[-1] or kind == "combined"  # equal texts, but for chance
