"""What attempts at a task have in common: independent ones parted into steps, and the scores of those that came through a beginning.

The mean score of the attempts that share a beginning is the Monte-Carlo value of it, by one continuation where nobody else begins so; of
the root it is the mean of the group.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.baselines import with_values
from etude.rollouts.steps import Steps

Beginning = tuple[int, ...]
"""The own tokens of an attempt up to the end of one of its steps."""


def beginnings(attempt: Attempt) -> list[Beginning]:
    """At the boundaries of its steps: no own token, those of the first step, and so on."""
    own, ends = attempt.own_tokens, [sum(attempt.step_lengths[:number]) for number in range(len(attempt.step_lengths) + 1)]
    return [own[:end] for end in ends]


def scores_through(group: Group, verdicts: Sequence[Verdict]) -> dict[Beginning, list[float]]:
    """Return the scores of the attempts that share each beginning, of those that have one."""
    through: dict[Beginning, list[float]] = {}
    for attempt, verdict in zip(group.attempts, verdicts, strict=True):
        for beginning in beginnings(attempt) if verdict.score is not None else ():
            through.setdefault(beginning, []).append(verdict.score or 0.0)
    return through


def parted(group: Group, verdicts: Sequence[Verdict], steps: Steps, decode: Callable[[Sequence[int]], str]) -> tuple[Group, list[Verdict]]:
    """Independent attempts with their steps, and verdicts that know the Monte-Carlo values at the steps' boundaries, and the baselines by
    the other attempts.
    """
    own = [replace(attempt, step_lengths=tuple(steps.lengths(attempt.own_tokens, decode))) for attempt in group.attempts]
    group = Group(group.task, tuple(own))
    through = scores_through(group, verdicts)
    mean = {beginning: fmean(scores) for beginning, scores in through.items()}
    draws: dict[Beginning, dict[Beginning, tuple[int, float]]] = {}
    for attempt in own:
        for before, after in pairwise(beginnings(attempt)):
            if after in mean:
                draws.setdefault(before, {})[after] = len(through[after]), mean[after]
    return group, [
        verdict if verdict.score is None else with_values(verdict, beginnings(attempt), mean, draws)
        for attempt, verdict in zip(own, verdicts, strict=True)
    ]
