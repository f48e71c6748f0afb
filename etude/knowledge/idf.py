"""Inverse document frequency (IDF) of words, and the matching of tasks to pieces of knowledge by shared rare words."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etude.knowledge.passages import Assignment, Knowledge, answer_text
from etude.tasks.choices import choices_of
from etude.tasks.task import Task, canonical_words

_NAMED, _LEAST_LETTERS, _LEAST_NATS = 3, 4, 1.5
"""Words that describe a problem: at most _NAMED, of at least _LEAST_LETTERS letters, in less than a quarter of the pieces of knowledge."""


@dataclass
class InverseDocumentFrequency:
    """Inverse document frequencies: log(documents / documents that have the word), in nats."""

    documents: int
    having: Mapping[str, int]

    @staticmethod
    def fit(texts: Sequence[str]) -> "InverseDocumentFrequency":
        """Count in how many texts each word occurs."""
        counts = Counter(word for text in texts for word in set(canonical_words(text)) if word.isalnum())
        return InverseDocumentFrequency(len(texts), counts)

    def __call__(self, word: str) -> float:
        """Return the IDF of a word in nats; 0 for a word in no document, and for one in all."""
        having = self.having.get(word, 0)
        return math.log(self.documents / having) if having else 0.0

    def top_words(self, words: set[str]) -> list[str]:
        """Return the words with the highest IDF, if any is high enough."""
        telling = [word for word in words if len(word) >= _LEAST_LETTERS and self(word) >= _LEAST_NATS]
        return sorted(telling, key=lambda word: (-self(word), word))[:_NAMED]

    def shared_weight(self, one: set[str], other: set[str]) -> float:
        """Sum the IDF of the words that two texts have in common."""
        return math.fsum(map(self, one & other))  # independent of the set's order


def problem_words(task: Task) -> set[str]:
    """Return the words of a problem and its answer."""
    return set(canonical_words(f"{task.question} {answer_text(task)}"))


def match_tasks(knowledge: Sequence[Knowledge], tasks: Sequence[Task], idf: InverseDocumentFrequency) -> list[tuple[Knowledge, list[Task]]]:
    """Assign each task to the piece of knowledge with which it shares most rare words; returns the pieces that have tasks."""
    words = [set(canonical_words(f"{each.heading} {each.text}")) for each in knowledge]
    of_piece: dict[int, list[Task]] = {}
    for task in tasks:
        wanted = problem_words(task)
        place = max(range(len(words)), key=lambda place: (idf.shared_weight(wanted, words[place]), -place))
        of_piece.setdefault(place, []).append(task)
    return [(knowledge[place], of_piece[place]) for place in sorted(of_piece)]


def make_assignments(pieces: Sequence[tuple[Knowledge, Sequence[Task]]], most_tasks: int) -> list[Assignment]:
    """Split each piece's tasks into assignments of at most `most_tasks` tasks, with mixed kinds of tasks."""
    return [
        Assignment(knowledge, tuple(mixed[start : start + most_tasks]))
        for knowledge, tasks in pieces
        for mixed in [_alternate(tasks)]
        for start in range(0, len(mixed), most_tasks)
    ]


def _alternate(tasks: Sequence[Task]) -> list[Task]:
    """Alternate tasks with choices and open ones as long as possible, so that a passage shows different uses."""
    kinds = [[task for task in tasks if choices_of(task)], [task for task in tasks if not choices_of(task)]]
    mixed = []
    for place in range(max(map(len, kinds), default=0)):
        mixed += [kind[place] for kind in kinds if place < len(kind)]
    return mixed
