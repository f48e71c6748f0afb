"""Turn a step's attempts into training examples, by policy gradient or by imitation, a list for each group.

policy gradient  every attempt enters the policy stream, each own token with its advantage; turns without signal in their group enter none
imitation        right attempts enter the imitate stream (rejection sampling: RAFT, arXiv 2304.06767; ReST-EM, arXiv 2312.06585; STaR,
                 arXiv 2203.14465, where some saw the answer and are imitated as if they had not), every group with the same total weight,
                 so that easy tasks do not outweigh hard ones. Groups in which all or none are right are left out, so that both methods
                 learn from the same tasks, unless solved groups are included. Departures: STaR decodes one answer greedily, before and
                 after the hint, here a group is sampled; ReST-EM takes a maximum number of answers per task, here their weights are
                 divided; both go through all tasks between two models

Each turn of a revised attempt is an example, whose prompt is everything before it. Policy gradient gives it its own advantage
(`etude.learn.turn_advantages`). Imitation takes the right turns of attempts that ended right, each with an attempt's weight, and no wrong
turns.
"""

from collections.abc import Sequence

from etude.learn.advantages import advantage_rule
from etude.learn.example import Example, Weights
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.turn_advantages import turn_advantages, turns_with_signal
from etude.rollouts.attempts import Attempt, Group, Source
from etude.tasks.reward import Reward, scores_of, turns_right

Rewards = Sequence[Sequence[Reward]]
Advantages = list[list[Weights]]
"""Advantages of every own token of every attempt, by group."""
Examples = list[list[Example]]

METHODS = ("policy_gradient", "imitation", "preference")
"""Ways to learn from a step's attempts."""


def policy_gradient_examples(
    groups: Sequence[Group],
    rewards: Rewards,
    advantages: Sequence[Sequence[Weights]],
    *,
    turn_discount: float = 1.0,
    masked: Sequence[Sequence[bool]] | None = None,
) -> Examples:
    """Return an example for every turn of every attempt that is not `masked`; those without signal are in no stream."""
    found = []
    masked = masked or [[False] * len(group.attempts) for group in groups]
    for group, row, own, is_masked in zip(groups, rewards, advantages, masked, strict=True):
        has_signal = turns_with_signal(map(scores_of, row), turn_discount)
        if not any(any(weights) for weights in own):  # rewards differ, but no set of attempts is better than another (`pass_at_k`)
            has_signal = [False] * len(has_signal)
        found.append(
            [
                _example(attempt, turn, policy=weights if has_signal[turn] else None)
                for attempt, weights, is_out in zip(group.attempts, own, is_masked, strict=True)
                for turn in range(attempt.turns)
                if not is_out
            ]
        )
    return found


def in_a_stream(examples: Sequence[Sequence[Example]]) -> Examples:
    """Return the examples that are in a stream, by group."""
    return [[each for each in row if each.policy or each.imitate or each.anchor] for row in examples]


def token_advantages(
    groups: Sequence[Group],
    rewards: Rewards,
    advantage: str,
    turn_discount: float = 1.0,
    added: Sequence[Sequence[Weights]] | None = None,
    pass_k: int = 1,
) -> Advantages:
    """Return the advantage of every own token of every attempt, by group, plus those `added`; `pass_k` is for the rule `pass_at_k`."""
    if added is not None:
        earned = token_advantages(groups, rewards, advantage, turn_discount, pass_k=pass_k)
        return [[_sum(*both) for both in zip(row, more, strict=True)] for row, more in zip(earned, added, strict=True)]
    if advantage in STEP_ADVANTAGES:
        return STEP_ADVANTAGES[advantage](groups, rewards)
    by_turn = turn_advantages([[scores_of(reward) for reward in row] for row in rewards], advantage_rule(advantage, pass_k), turn_discount)
    return [
        [_of_tokens(attempt, turns) for attempt, turns in zip(group.attempts, row, strict=True)]
        for group, row in zip(groups, by_turn, strict=True)
    ]


def imitation_examples(
    groups: Sequence[Group], rewards: Rewards, *, turn_discount: float = 1.0, include_solved_groups: bool = False
) -> Examples:
    """Return the right attempts of the groups with signal, or of all groups (`include_solved_groups`).

    The weights of a group sum to its number of attempts, without those that saw the answer or were made from others.
    """
    found: Examples = []
    for group, row in zip(groups, rewards, strict=True):
        right = [(attempt, turns_right(reward)) for attempt, reward in zip(group.attempts, row, strict=True) if reward.is_right]
        number = sum(attempt.is_sample for attempt in group.attempts)
        if not include_solved_groups and not any(turns_with_signal(map(scores_of, row), turn_discount)):
            right = []
        found.append(
            [
                _example(attempt, turn, imitate=(number / len(right),) * attempt.num_own_tokens)
                for attempt, turns in right
                for turn, is_right in enumerate(turns)
                if is_right
            ]
        )
    return found


def _sum(one: Weights, other: Weights) -> Weights:
    return tuple(mine + its for mine, its in zip(one, other, strict=True))


def _of_tokens(attempt: Attempt, turns: Sequence[float]) -> Weights:
    """Return the advantage of turns for each of their tokens."""
    return tuple(advantage for advantage, (start, end) in zip(turns, attempt.turn_spans, strict=True) for _ in range(start, end))


def _example(attempt: Attempt, turn: int, **streams: Weights | None) -> Example:
    """Return one turn of an attempt; `streams` have a weight for every own token of the whole attempt."""
    start, end = attempt.turn_spans[turn]
    before = attempt.sources[:start].count(Source.OWN)
    own = slice(before, before + end - start)
    weights = {name: values and values[own] for name, values in streams.items()}
    return Example(attempt.tokens[:start], attempt.tokens[start:end], behaviour_logprobs=attempt.logprobs[own], **weights)
