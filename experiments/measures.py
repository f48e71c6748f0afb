"""Reduce values over items to measures with intervals, and judge a claim by such measures.

A measure NAME of a row comes with NAME_low and NAME_high, the ends of its interval (95 % unless a study says otherwise).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.statistics import mean_interval, paired_test, shares_interval, wilson_interval

Measure = dict[str, float]
Verdict = tuple[str, str]
"""`holds`, `does not hold` or `undecided`, and why."""


def with_ends(name: str, middle: float, ends: Sequence[float]) -> Measure:
    """Return a measure with the ends of its interval."""
    return {name: middle, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def mean(name: str, values: Iterable[float], confidence: float = 0.95) -> Measure:
    """Return the mean over items with its bootstrap interval."""
    values = list(values)
    return with_ends(name, fmean(values), mean_interval(values, confidence))


def mean_difference(name: str, before: Iterable[float], after: Iterable[float], confidence: float = 0.95) -> Measure:
    """Return the mean of `after - before`, paired over items, with its bootstrap interval."""
    return mean(name, differences(before, after), confidence)


def differences(before: Iterable[float], after: Iterable[float]) -> list[float]:
    """Return `after - before` of each item."""
    return [mine - its for its, mine in zip(before, after, strict=True)]


def share(name: str, right: int, n: int) -> Measure:
    """Return the share of `n` answers that are right, with Wilson's interval."""
    return with_ends(name, right / n, wilson_interval(right, n))


def mean_share(name: str, shares: Sequence[float]) -> Measure:
    """Return the mean over items of the share of an item's answers that are right, with its interval."""
    return with_ends(name, fmean(shares), shares_interval(shares))


def gain(name: str, before: Sequence[bool], after: Sequence[bool], confidence: float = 0.95) -> Measure:
    """Return how many more items are right in `after` than in `before`, as a share, with Newcombe's paired interval."""
    test = paired_test(before, after, confidence)
    return with_ends(name, test.difference, (test.difference_low, test.difference_high))


# ---------------------------------------------------------------------- the verdict


def undecided(lacking: Sequence[str] = ()) -> Verdict:
    """Return the verdict of a study that lacks cells, and which arms or sets they are of, where that is known."""
    return "undecided", "not all cells are there" + (f": {', '.join(lacking)}" if lacking else "")


def lacking(rows: Mapping[Any, Mapping[str, Any]], arms: Iterable[Any], seeds: int | Callable[[Any], int]) -> list[Any]:
    """Return the arms of which `rows` has no row, or one of fewer than so many seeds."""
    least = seeds if callable(seeds) else lambda _: seeds
    return [arm for arm in arms if arm not in rows or rows[arm]["seeds"] < least(arm)]


def decided(holds: bool, because: str) -> Verdict:
    """Return the verdict of a complete study."""
    return ("holds" if holds else "does not hold"), because


def all_hold(parts: Mapping[str, bool | None], said: Sequence[str] = (), unclear: str = "undecided") -> Verdict:
    """Return the verdict on a claim of several parts, all of which have to hold; `said` stands before what became of each.

    A part that is None is undecided, which the word `unclear` says, and so is the claim unless another part does not hold.
    """
    words = {True: "holds", False: "does not hold", None: unclear}
    because = "; ".join([*said, *(f"{words[is_so]}: {part}" for part, is_so in parts.items())])
    is_open = None in parts.values() and False not in parts.values()
    return ("undecided", because) if is_open else decided(False not in parts.values(), because)


def in_points(row: Mapping[str, Any], name: str, *, sign: str = "+", unit: str = "") -> str:
    """Write a measure with its interval in percentage points.

    >>> in_points({"gain": 0.012, "gain_low": -0.001, "gain_high": 0.03}, "gain", unit=" points")
    '+1.2 points [-0.1, +3.0]'
    """
    middle, low, high = (format(100 * row[f"{name}{end}"], f"{sign}.1f") for end in ("", "_low", "_high"))
    return f"{middle}{unit} [{low}, {high}]"
