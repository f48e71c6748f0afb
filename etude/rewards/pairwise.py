"""Pairwise comparison: choose the pairs of attempts, and turn their verdicts into scores.

A judge tends to prefer a position, so every pair is shown in both orders (Zheng et al. 2023, arXiv 2306.05685, sec. 3.4). If the two
verdicts do not prefer the same attempt, and are not both ties, the pair counts as a tie and a disagreement. A pair with a missing verdict
does not count. An attempt without a counted pair has no score, unless all others have the same text: then they are `EQUAL`.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from etude.tasks.reward import Reward

Which = Literal["ring", "all"]

EQUAL = Reward(0.5, message="all attempts at the task have the same text")
"""The reward if all attempts have the same text."""
_POINTS = {"first": 1.0, "second": 0.0, "tie": 0.5}


class Compared(NamedTuple):
    """Two attempts, by index, and the better one: `first`, `second` or `tie` in the order shown, None without a verdict."""

    first: int
    second: int
    better: str | None
    better_when_swapped: str | None


class Standing(NamedTuple):
    """The sum of an attempt's comparisons."""

    points: float = 0.0
    pairs: int = 0
    disagreements: int = 0

    @property
    def reward(self) -> Reward:
        """The reward: the share of comparisons won."""
        if not self.pairs:
            return Reward(None, message="it was compared with no other attempt")
        message = "" if self.points == self.pairs else f"won {self.points:g} of {self.pairs} comparisons"
        return Reward(self.points / self.pairs, {"judge_disagreement": self.disagreements / self.pairs}, message=message)


def pairs_of(n: int, which: Which, most: int) -> list[tuple[int, int]]:
    """Return pairs of n attempts: each with the next one in a ring; for `all` also with the one after that, and so on, up to `most`.

    >>> pairs_of(3, "ring", 10), pairs_of(4, "all", 5)
    ([(0, 1), (1, 2), (2, 0)], [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    """
    found: list[tuple[int, int]] = []
    for distance in range(1, (1 if which == "ring" else n // 2) + 1):
        ring = [(place, (place + distance) % n) for place in range(n // 2 if 2 * distance == n else n if n > 1 else 0)]
        found += ring if distance == 1 else ring[: max(0, most - len(found))]
    return found


def standings(n: int, compared: Sequence[Compared]) -> list[Standing]:
    """Add up the comparisons of each of n attempts.

    >>> standings(2, [Compared(0, 1, "first", "second")])[0].reward.score, standings(2, [Compared(0, 1, "first", "first")])[0]
    (1.0, Standing(points=0.5, pairs=1, disagreements=1))
    """
    found = [Standing()] * n
    for first, second, better, swapped in compared:
        if better is None or swapped is None:
            continue
        points, again = _POINTS[better], 1.0 - _POINTS[swapped]
        differs = points != again
        points = 0.5 if differs else points
        for place, won in ((first, points), (second, 1.0 - points)):
            before = found[place]
            found[place] = Standing(before.points + won, before.pairs + 1, before.disagreements + differs)
    return found
