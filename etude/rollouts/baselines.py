"""What was to be expected of an attempt before each of its steps, by the other draws: baselines that its own luck has no part in.

At a place of a tree n continuations were sampled, each of which led to a step of some value. The baseline of one of them is

    n ≥ 2   the mean value of the other n - 1                               (leave one out: RLOO, arXiv 2402.14740 eq. 8)
    n = 1   the mean value of the draws that left its path at the nearest place before: nobody else came here, but others set out alike

so that value - baseline has the expectation of the advantage, whatever the step. Without any other draw there is no baseline.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from etude.tasks.reward import Reward

Place = TypeVar("Place", bound=Hashable)

Draws = Mapping[Place, Mapping[Place, tuple[int, float]]]
"""Of every place, the places that were sampled from it: how often, and what an answer that goes on from there is worth."""


def baselines(path: Sequence[Place], draws: Draws[Place]) -> list[float | None]:
    """Before each step of a path, which begins with the root; None where no draw stands beside it.

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
    """The reward of an attempt that took this path, with the values at its places and the baselines of its steps. Where no draw stands
    beside a step, the baseline is its own value, which leaves it without advantage.
    """
    by_others = zip(baselines(path, draws), path[1:], strict=True)
    return replace(
        reward,
        step_values=tuple(values[place] for place in path),
        step_baselines=tuple(values[after] if baseline is None else baseline for baseline, after in by_others),
    )
