"""The order of tasks: every task once an epoch, shuffled for each epoch, as a pure function of the step."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from etude.randomness import seed_for

Item = TypeVar("Item")


def batch_at(step: int, items: Sequence[Item], size: int, *names: object) -> list[Item]:
    """Return the `size` items of step `step`, counted from 1; `names` fix the order. A batch may run over the end of an epoch.

    >>> [batch_at(step, "abcd", 2, "seed") for step in (1, 2)] == [batch_at(step, "abcd", 2, "seed") for step in (1, 2)]
    True
    """
    places = range((step - 1) * size, step * size)
    return [items[_permutation(len(items), place // len(items), names)[place % len(items)]] for place in places]


def visits(keys: Iterable[str]) -> list[int]:
    """Count how often each task, by its key, came before in the same batch: 0, unless the batch runs over the end of an epoch.

    >>> visits(["a", "b", "a"])
    [0, 0, 1]
    """
    before: Counter[str] = Counter()
    found = []
    for key in keys:
        found.append(before[key])
        before[key] += 1
    return found


def _permutation(n: int, epoch: int, names: Sequence[object]) -> np.ndarray:
    return np.random.default_rng(seed_for("order", *names, epoch)).permutation(n)
