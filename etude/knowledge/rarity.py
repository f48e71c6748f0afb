"""How much a word says of a text, and which tasks belong to which piece of knowledge by the words that say much."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etude.knowledge.passages import Assignment, Knowledge, answer_text
from etude.tasks.choices import choices_of
from etude.tasks.task import Task, canonical_words

_NAMED, _LEAST_LETTERS, _LEAST_NATS = 3, 4, 1.5
"""Words that a problem is described by: so many, of so many letters, and in less than a quarter of the pieces of knowledge."""


@dataclass
class Rarity:
    """How much a word says: log of documents for each that has it."""

    documents: int
    having: Mapping[str, int]

    @staticmethod
    def of(texts: Sequence[str]) -> "Rarity":
        counts = Counter(word for text in texts for word in set(canonical_words(text)) if word.isalnum())
        return Rarity(len(texts), counts)

    def __call__(self, word: str) -> float:
        """In nats; 0 for what no document has, and for what every one has."""
        having = self.having.get(word, 0)
        return math.log(self.documents / having) if having else 0.0

    def rarest(self, words: set[str]) -> list[str]:
        """The words that say most, if any says much."""
        telling = [word for word in words if len(word) >= _LEAST_LETTERS and self(word) >= _LEAST_NATS]
        return sorted(telling, key=lambda word: (-self(word), word))[:_NAMED]

    def shared(self, one: set[str], other: set[str]) -> float:
        """Of the words that two texts have in common."""
        return math.fsum(map(self, one & other))  # whatever the order of the set


def words_of(task: Task) -> set[str]:
    """The words of a problem and its answer."""
    return set(canonical_words(f"{task.question} {answer_text(task)}"))


def together(knowledge: Sequence[Knowledge], tasks: Sequence[Task], rarity: Rarity) -> list[tuple[Knowledge, list[Task]]]:
    """Each piece of knowledge with the tasks that share most rare words with it; those without tasks are left out."""
    words = [set(canonical_words(f"{each.heading} {each.text}")) for each in knowledge]
    of_piece: dict[int, list[Task]] = {}
    for task in tasks:
        wanted = words_of(task)
        place = max(range(len(words)), key=lambda place: (rarity.shared(wanted, words[place]), -place))
        of_piece.setdefault(place, []).append(task)
    return [(knowledge[place], of_piece[place]) for place in sorted(of_piece)]


def assignments(pieces: Sequence[tuple[Knowledge, Sequence[Task]]], most_tasks: int) -> list[Assignment]:
    """`most_tasks` of the tasks of each piece at a time, kinds of tasks mixed."""
    return [
        Assignment(knowledge, tuple(mixed[start : start + most_tasks]))
        for knowledge, tasks in pieces
        for mixed in [_alternating(tasks)]
        for start in range(0, len(mixed), most_tasks)
    ]


def _alternating(tasks: Sequence[Task]) -> list[Task]:
    """Tasks with choices and open ones by turns, as long as there are both, so that a passage shows different uses."""
    kinds = [[task for task in tasks if choices_of(task)], [task for task in tasks if not choices_of(task)]]
    mixed = []
    for place in range(max(map(len, kinds), default=0)):
        mixed += [kind[place] for kind in kinds if place < len(kind)]
    return mixed
