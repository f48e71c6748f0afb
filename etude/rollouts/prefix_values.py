"""What attempts at a task have in common: independent ones parted into steps, and the scores of those that came through a prefix.

The mean score of the attempts that share a prefix is the Monte-Carlo value of it, by one continuation where nobody else begins so; of
the root it is the mean of the group.
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
    """At the boundaries of its steps: no own token, those of the first step, and so on."""
    own, ends = attempt.own_tokens, [sum(attempt.step_lengths[:number]) for number in range(len(attempt.step_lengths) + 1)]
    return [own[:end] for end in ends]


def scores_through(group: Group, rewards: Sequence[Reward]) -> dict[Prefix, list[float]]:
    """Return the scores of the attempts that share each prefix, of those that have one."""
    through: dict[Prefix, list[float]] = {}
    for attempt, reward in zip(group.attempts, rewards, strict=True):
        for prefix in prefixes(attempt) if reward.score is not None else ():
            through.setdefault(prefix, []).append(reward.score or 0.0)
    return through


def split_into_steps(
    group: Group, rewards: Sequence[Reward], steps: Steps, decode: Callable[[Sequence[int]], str]
) -> tuple[Group, list[Reward]]:
    """Independent attempts with their steps, and rewards that know the Monte-Carlo values at the steps' boundaries, and the baselines by
    the other attempts.
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
