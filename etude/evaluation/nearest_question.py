"""The answer of the most similar training question: what an accuracy would be by looking a question up instead of working it out.

Similarity is the Jaccard index of the two questions' word sets (shared words over all words of the two). Where names make up most of a
question they decide: `etude.evaluation.same_wording` sets them aside.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from etude.tasks.task import Task


def nearest_answers(train: Sequence[Task], tasks: Sequence[Task]) -> list[str | None]:
    """For every task the answer of the training task (with an answer) whose question is most similar, the first of equals; else None.

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
