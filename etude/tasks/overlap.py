"""Do two sets of tasks share items or wording, and how many items does a generated family have?"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import exp, inf

from etude.errors import UserError, at_least
from etude.tasks.families import draw_entries
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task

Piece = tuple[str, ...]
"""Words in a row."""


def overlap(train: Iterable[Task], evaluation: Iterable[Task]) -> list[tuple[Task, Task]]:
    """The evaluation tasks that are in training too, by canonical key, each with the first such training task.

    >>> overlap([Task("What is 2 + 2?")], [Task("what is  2 + 2 ?"), Task("What is 2 + 3?")])[0][1].prompt
    'what is  2 + 2 ?'
    """
    seen: dict[str, Task] = {}
    for task in train:
        seen.setdefault(task.key, task)
    return [(seen[task.key], task) for task in evaluation if task.key in seen]


def shared_wording(train: Iterable[Task], evaluation: Sequence[Task], n: int = 8) -> list[float]:
    """For each evaluation task the share of its pieces of n words that stand in some training task's question too (a shorter question is
    one piece).

    Words are those of the canonical key. 13 words are usual for long texts (Brown et al. 2020, arXiv 2005.14165, appendix C); problems are
    short, and copies with other names or numbers differ every few words. Memory is that of the evaluation's pieces.

    >>> shared_wording([Task("Ann has 3 red pens and 4 blue pens.")], [Task("Now Ann has 3 red pens and 4 green pens.")], n=4)
    [0.5]
    """
    asked = [pieces(task.words, n) for task in evaluation]
    all_asked = {piece for of_task in asked for piece in of_task}
    found: set[Piece] = set()
    for task in train:
        found |= all_asked & pieces(task.words, n)
    return [len(of_task & found) / len(of_task) for of_task in asked]


def pieces(words: Sequence[str], n: int) -> set[Piece]:
    """All different runs of n words; of fewer words one shorter run.

    >>> sorted(pieces("a b c a b".split(), 2))
    [('a', 'b'), ('b', 'c'), ('c', 'a')]
    """
    return set(zip(*(words[start:] for start in range(n)), strict=False)) or {tuple(words)}


@dataclass(frozen=True)
class SpaceEstimate:
    """How many items a source has, from the repetitions among some draws."""

    draws: int
    """Items drawn."""
    distinct: int
    """Different ones among them."""
    items: float
    """Estimate of the number of items, as if all were equally likely; infinite where nothing was drawn twice."""
    items_low: float
    """Lower end of the one-sided 95 % interval."""


def estimate_space(draw: Sequence[Hashable]) -> SpaceEstimate:
    """The birthday estimate: among n draws from N items, n (n - 1) / 2N pairs are expected to be equal, about Poisson distributed.

    `draw` are the drawn items or their keys. Where no pair is equal, N is unknown upwards, and at least pairs / 3.0 with 95 % confidence.

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
    """The share of different items among n raw draws from a family: 1.0 where nothing repeats. Raises UserError for other sources."""
    return len(set(_keys(source, n, seed))) / n


def family_space(source: TaskSource, n: int, seed: int) -> SpaceEstimate:
    """`estimate_space` of n raw draws from a family."""
    return estimate_space(_keys(source, n, seed))


def _keys(source: TaskSource, n: int, seed: int) -> list[str]:
    if source.family is None:
        raise UserError("only a family draws items again and again; for files and data sets, compare them with overlap")
    at_least("n", n, 1)
    entries = draw_entries(source.family, source.parameters, split="space", seed=seed)
    return [Task(entry["question"]).key for entry in islice(entries, n)]


def _poisson_upper(count: int) -> float:
    """The mean at which `count` or fewer events have a chance of 5 %, by bisection; above 100 events, by the normal approximation."""
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
