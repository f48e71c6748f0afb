"""Baselines before each step of an attempt, computed from the other samples and so independent of the attempt's own outcome.

At a node of a tree, n continuations were sampled, each of which led to a step of some value. The baseline of one of them is

    n ≥ 2   the mean value of the other n - 1                               (leave one out: RLOO, arXiv 2402.14740 eq. 8)
    n = 1   the mean value of the samples that left its path at the nearest earlier node with others

so that value - baseline has the expectation of the advantage, whatever the step. Without any other sample there is no baseline.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from etude.tasks.reward import Reward

Place = TypeVar("Place", bound=Hashable)

Draws = Mapping[Place, Mapping[Place, tuple[int, float]]]
"""For every node, the nodes sampled from it: how often, and the expected value of answers that continue there."""


def baselines(path: Sequence[Place], draws: Draws[Place]) -> list[float | None]:
    """Return the baseline before each step of a path, which begins with the root; None without other samples.

    >>> baselines(["", "a", "ab"], {"": {"a": (1, 0.5), "b": (1, 0.0)}, "a": {"ab": (1, 1.0), "ac": (1, 0.0)}})
    [0.0, 0.0]
    >>> baselines(["", "b", "bd"], {"": {"a": (1, 0.5), "b": (1, 0.0)}, "b": {"bd": (1, 0.0)}})
    [0.5, 0.5]
    """
    found: list[float | None] = []
    outside: float | None = None
    for place, chosen in pairwise(path):
        number = sum(times for times, _ in draws[place].values())
        total = sum(times * value for times, value in draws[place].values())
        times, value = draws[place][chosen]
        found.append((total - value) / (number - 1) if number > 1 else outside)
        if number > times:
            outside = (total - times * value) / (number - times)
    return found


def with_values(reward: Reward, path: Sequence[Place], values: Mapping[Place, float], draws: Draws[Place]) -> Reward:
    """Return the reward of an attempt on this path, with the values of its nodes and the baselines of its steps. Without other samples the
    baseline is the step's own value, so that the step has no advantage.
    """
    by_others = zip(baselines(path, draws), path[1:], strict=True)
    return replace(
        reward,
        step_values=tuple(values[place] for place in path),
        step_baselines=tuple(values[after] if baseline is None else baseline for baseline, after in by_others),
    )
