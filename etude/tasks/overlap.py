"""Measures the overlap of two sets of tasks, and estimates the number of items of a generated family."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, inf

from etude.errors import UserError, at_least
from etude.tasks.families import sample_tasks
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task

NGram = tuple[str, ...]
"""An n-gram: n consecutive words."""


def overlap(train: Iterable[Task], evaluation: Iterable[Task]) -> list[tuple[Task, Task]]:
    """Return the evaluation tasks that are also training tasks, each with the first such training task.

    Tasks are compared by canonical key.

    >>> overlap([Task("What is 2 + 2?")], [Task("what is  2 + 2 ?"), Task("What is 2 + 3?")])[0][1].prompt
    'what is  2 + 2 ?'
    """
    seen: dict[str, Task] = {}
    for task in train:
        seen.setdefault(task.key, task)
    return [(seen[task.key], task) for task in evaluation if task.key in seen]


def ngram_overlap(train: Iterable[Task], evaluation: Sequence[Task], n: int = 8) -> list[float]:
    """Return, for each evaluation task, the share of its n-grams of words that also occur in some training task.

    Words are those of the canonical key; a question shorter than n words is one n-gram. 13 words are usual for long texts (Brown et al.
    2020, arXiv 2005.14165, appendix C); problems are short, and copies with other names or numbers differ every few words. Memory is that
    of the evaluation tasks' n-grams.

    >>> ngram_overlap([Task("Ann has 3 red pens and 4 blue pens.")], [Task("Now Ann has 3 red pens and 4 green pens.")], n=4)
    [0.5]
    """
    asked = [ngrams(task.words, n) for task in evaluation]
    all_asked = {piece for of_task in asked for piece in of_task}
    found: set[NGram] = set()
    for task in train:
        found |= all_asked & ngrams(task.words, n)
    return [len(of_task & found) / len(of_task) for of_task in asked]


def ngrams(words: Sequence[str], n: int) -> set[NGram]:
    """Return all distinct n-grams of the words; fewer than n words are one shorter n-gram.

    >>> sorted(ngrams("a b c a b".split(), 2))
    [('a', 'b'), ('b', 'c'), ('c', 'a')]
    """
    return set(zip(*(words[start:] for start in range(n)), strict=False)) or {tuple(words)}


@dataclass(frozen=True)
class SpaceEstimate:
    """An estimate of how many items a source has, from repetitions in a sample."""

    draws: int
    """Items sampled."""
    distinct: int
    """Distinct items among them."""
    items: float
    """Estimated number of items, if all were equally likely; infinite if nothing was sampled twice."""
    items_low: float
    """Lower end of the one-sided 95 % interval."""


def estimate_space(draw: Sequence[Hashable]) -> SpaceEstimate:
    """Estimate the number of items from repetitions in a sample (birthday estimate).

    Among n samples from N items, n (n - 1) / 2N pairs are expected to be equal, about Poisson distributed. `draw` holds the sampled items
    or their keys. If no pair is equal, N has no upper bound, and is at least pairs / 3.0 with 95 % confidence.

    >>> estimate_space(range(1000)).items_low > 160_000
    True
    """
    counts = Counter(draw)
    pairs = len(draw) * (len(draw) - 1) / 2
    equal = sum(count * (count - 1) // 2 for count in counts.values())
    return SpaceEstimate(
        draws=len(draw),
        distinct=len(counts),
        items=max(float(len(counts)), pairs / equal) if equal else inf,
        items_low=max(float(len(counts)), pairs / _poisson_upper(equal)),
    )


def distinct_share(source: TaskSource, n: int, seed: int) -> float:
    """Return the share of distinct items among n samples from a family: 1.0 if nothing repeats. Raises UserError for other sources."""
    return len(set(_keys(source, n, seed))) / n


def family_space(source: TaskSource, n: int, seed: int) -> SpaceEstimate:
    """Estimate the number of items of a family with `estimate_space` from n samples. Raises UserError for other sources."""
    return estimate_space(_keys(source, n, seed))


def _keys(source: TaskSource, n: int, seed: int) -> list[str]:
    if source.family is None:
        raise UserError("only a family draws items again and again; for files and data sets, compare them with overlap")
    at_least("n", n, 1)
    return [task.key for task in islice(sample_tasks(source.family, source.parameters, split="space", seed=seed), n)]


def _poisson_upper(count: int) -> float:
    """Return the mean at which `count` or fewer events have a chance of 5 %, by bisection (above 100: by the normal approximation)."""
    if count > 100:
        return count + 1.645 * (count + 1) ** 0.5 + 1
    low, high = 0.0, 2.0 * count + 10
    for _ in range(60):
        middle = (low + high) / 2
        term = total = exp(-middle)
        for event in range(1, count + 1):
            term *= middle / event
            total += term
        low, high = (middle, high) if total > 0.05 else (low, middle)
    return high
