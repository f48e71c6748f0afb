"""Baseline: the answer of the most similar training question, the accuracy of a lookup without any reasoning.

Similarity is the Jaccard index of the two questions' word sets (shared words / all words). If names make up most of a question, they decide
it: `etude.evaluation.same_wording` ignores them.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from etude.tasks.task import Task


def nearest_answers(train: Sequence[Task], tasks: Sequence[Task]) -> list[str | None]:
    """Return for every task the answer of the first most similar training task that has one; None without such tasks.

    >>> nearest_answers([Task("Who is Ann's son?", "Bob"), Task("What is 2 + 2?", "4")], [Task("Who is Eve's son?", "Tom")])
    ['Bob']
    """
    train = [task for task in train if task.answer is not None]
    if not train:
        return [None] * len(tasks)
    words = [_words(task) for task in train]
    sizes = np.array([len(found) for found in words])
    places: dict[str, list[int]] = defaultdict(list)
    for place, found in enumerate(words):
        for word in found:
            places[word].append(place)
    return [train[_nearest(_words(task), places, sizes)].answer for task in tasks]


def _nearest(words: set[str], places: dict[str, list[int]], sizes: np.ndarray) -> int:
    shared = np.zeros(len(sizes), dtype=int)
    for word in words:
        shared[places.get(word, [])] += 1
    return int(np.argmax(shared / np.maximum(sizes + len(words) - shared, 1)))


def _words(task: Task) -> set[str]:
    return set(re.findall(r"\w+", task.question.casefold()))
