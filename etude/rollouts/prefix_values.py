"""Shared prefixes of independent attempts at a task: split attempts into steps, and compute the values of prefixes.

The mean score of the attempts that share a prefix is its Monte-Carlo value, from one continuation if no other attempt shares it; for the
root it is the mean of the group.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.baselines import with_values
from etude.rollouts.steps import Steps
from etude.tasks.reward import Reward

Prefix = tuple[int, ...]
"""The own tokens of an attempt up to the end of one of its steps."""


def prefixes(attempt: Attempt) -> list[Prefix]:
    """Return the attempt's prefixes at the boundaries of its steps: no own token, the first step, and so on."""
    own, ends = attempt.own_tokens, [sum(attempt.step_lengths[:number]) for number in range(len(attempt.step_lengths) + 1)]
    return [own[:end] for end in ends]


def scores_through(group: Group, rewards: Sequence[Reward]) -> dict[Prefix, list[float]]:
    """Return the known scores of the attempts that share each prefix."""
    through: dict[Prefix, list[float]] = {}
    for attempt, reward in zip(group.attempts, rewards, strict=True):
        for prefix in prefixes(attempt) if reward.score is not None else ():
            through.setdefault(prefix, []).append(reward.score or 0.0)
    return through


def split_into_steps(
    group: Group, rewards: Sequence[Reward], steps: Steps, decode: Callable[[Sequence[int]], str]
) -> tuple[Group, list[Reward]]:
    """Split independent attempts into steps; return them and their rewards with Monte-Carlo values at the steps' boundaries and baselines
    from the other attempts.
    """
    own = [replace(attempt, step_lengths=tuple(steps.lengths(attempt.own_tokens, decode))) for attempt in group.attempts]
    group = Group(group.task, tuple(own))
    through = scores_through(group, rewards)
    mean = {prefix: fmean(scores) for prefix, scores in through.items()}
    draws: dict[Prefix, dict[Prefix, tuple[int, float]]] = {}
    for attempt in own:
        for before, after in pairwise(prefixes(attempt)):
            if after in mean:
                draws.setdefault(before, {})[after] = len(through[after]), mean[after]
    return group, [
        reward if reward.score is None else with_values(reward, prefixes(attempt), mean, draws)
        for attempt, reward in zip(own, rewards, strict=True)
    ]
