"""Passages: how a piece of knowledge is used, as text to learn from.

A passage joins several solved problems on one piece of knowledge, for each a paragraph with the answer and its reason, and last a
paragraph on what they share and where each is special (TRAIT, 2024.emnlp-main.1162, whose passages a large model writes). Who
writes is a function behind one interface,

    writer(knowledge, tasks) -> text, or None where it has nothing to say

and `rule_made` needs no model: reasons are the knowledge's own sentences that hold most of a problem's rare words, and what is shared are
the rare words that all problems have, in a sentence of the knowledge. What a writer says is checked: the gold answers must stand in it,
nothing that is asked later may, and it may not repeat another passage.

Departure: problems are of one piece of knowledge by their words, not by what a model takes them for.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from etude.knowledge.duplicates import Seen
from etude.knowledge.leaks import Leaks
from etude.tasks.choices import choices_of, without_choices
from etude.tasks.task import Task, canonical_words

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\u201c\"(])")
_LEAST_WORDS, _MOST_WORDS = 6, 60
"""Of a sentence that may be a reason."""
_NAMED, _LEAST_LETTERS, _LEAST_NATS = 3, 4, 1.5
"""Words that a problem is described by: so many, of so many letters, and in less than a quarter of the pieces of knowledge."""


@dataclass(frozen=True)
class Knowledge:
    """A piece of knowledge: a heading and what is said below it."""

    heading: str
    text: str
    origin: str

    @property
    def sentences(self) -> list[str]:
        """Of prose: neither headings nor lists."""
        found = [" ".join(part.split()) for line in self.text.split("\n") for part in _SENTENCE.split(line)]
        return [part for part in found if part.endswith((".", "!")) and _LEAST_WORDS <= len(part.split()) <= _MOST_WORDS]


@dataclass(frozen=True)
class Passage:
    """A text that was written, and from what."""

    text: str
    sources: tuple[str, ...]
    """The origins of the knowledge and of each problem."""


Writer = Callable[[Knowledge, Sequence[Task]], str | None]


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
        return sum(map(self, one & other))


def answer_text(task: Task) -> str:
    """The right answer in words: of a question with choices the choice."""
    choices = choices_of(task)
    return choices[ord(task.answer) - ord("A")] if choices and task.answer else task.answer or ""


def rule_made(rarity: Rarity) -> Writer:
    """A writer that joins what is there: problems, answers, and sentences of the knowledge."""

    def write(knowledge: Knowledge, tasks: Sequence[Task]) -> str | None:
        sentences = knowledge.sentences
        words = [set(canonical_words(sentence)) for sentence in sentences]
        if not sentences or not tasks:
            return None

        def best(wanted: set[str], taken: set[int]) -> int:
            free = [place for place in range(len(sentences)) if place not in taken]
            return max(free, key=lambda place: (rarity.shared(wanted, words[place]), -place), default=-1)

        parts, taken, wanted_by = [knowledge.heading] if knowledge.heading else [], set[int](), list[set[str]]()
        for task in tasks:
            question, answer = without_choices(task.question, choices_of(task)), answer_text(task)
            wanted = set(canonical_words(f"{question} {answer}"))
            wanted_by.append(wanted)
            place = best(wanted, taken)
            if place < 0:
                return None
            taken.add(place)
            parts.append(f"Question: {question}\nAnswer: {answer}{'' if answer.endswith(('.', '!', '?')) else '.'} {sentences[place]}")
        if len(tasks) > 1:
            parts.append(_enlightenment(knowledge, tasks, wanted_by, sentences, best, rarity))
        return "\n\n".join(parts)

    return write


def _enlightenment(
    knowledge: Knowledge,
    tasks: Sequence[Task],
    wanted_by: Sequence[set[str]],
    sentences: Sequence[str],
    best: Callable[[set[str], set[int]], int],
    rarity: Rarity,
) -> str:
    """What the problems share, and what each is about alone."""
    about = _listed([*([knowledge.heading] if knowledge.heading else ()), *rarity.rarest(set.intersection(*wanted_by))])
    lines = [f"What these questions share: {f'all are about {about}. ' if about else ''}{sentences[best(set().union(*wanted_by), set())]}"]
    for number, (task, wanted) in enumerate(zip(tasks, wanted_by, strict=True), 1):
        others = set().union(*(other for other in wanted_by if other is not wanted))
        own = rarity.rarest(wanted - others)
        kind = "asks which of several answers is right" if choices_of(task) else "asks for an explanation"
        lines.append(f"Question {number} {kind}" + (f"; its own matter is {_listed(own)}." if own else "."))
    return " ".join(lines)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def together(knowledge: Sequence[Knowledge], tasks: Sequence[Task], rarity: Rarity) -> list[tuple[Knowledge, list[Task]]]:
    """Each piece of knowledge with the tasks that share most rare words with it; those without tasks are left out."""
    words = [set(canonical_words(f"{each.heading} {each.text}")) for each in knowledge]
    of_piece: dict[int, list[Task]] = {}
    for task in tasks:
        wanted = set(canonical_words(f"{task.question} {answer_text(task)}"))
        place = max(range(len(words)), key=lambda place: (rarity.shared(wanted, words[place]), -place))
        of_piece.setdefault(place, []).append(task)
    return [(knowledge[place], of_piece[place]) for place in sorted(of_piece)]


@dataclass
class Writing:
    """Writes passages, and counts what was not good enough."""

    writer: Writer
    leaks: Leaks
    similarity: float = 0.8
    most_tasks: int = 3
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""

    def passages(self, pieces: Sequence[tuple[Knowledge, Sequence[Task]]]) -> Iterator[Passage]:
        """A passage for every `most_tasks` tasks of every piece, kinds of tasks mixed, as far as it passes the checks."""
        seen = Seen(self.similarity)
        batches = [
            (knowledge, mixed[start : start + self.most_tasks])
            for knowledge, tasks in pieces
            for mixed in [_alternating(tasks)]
            for start in range(0, len(mixed), self.most_tasks)
        ]
        for key, (knowledge, chosen) in enumerate(batches):
            text = self.writer(knowledge, chosen)
            reason = self._flaw(text, chosen, seen, key)
            if reason:
                self.rejected[reason] += 1
            elif text is not None:
                yield Passage(text, (knowledge.origin, *(task.origin for task in chosen)))

    def _flaw(self, text: str | None, tasks: Sequence[Task], seen: Seen, key: int) -> str | None:
        """Why a passage is not good enough, if it is not."""
        if text is None:
            return "nothing to say"
        words = canonical_words(text)
        said = " ".join(words)
        if any(" ".join(canonical_words(answer_text(task))) not in said for task in tasks):
            return "gold answer missing"
        if self.leaks.worst(words):
            return "holds a question that is asked"
        return "repeats another" if seen.admit(key, words) is not None else None


def _alternating(tasks: Sequence[Task]) -> list[Task]:
    """Tasks with choices and open ones by turns, as long as there are both, so that a passage shows different uses."""
    kinds = [[task for task in tasks if choices_of(task)], [task for task in tasks if not choices_of(task)]]
    mixed = []
    for place in range(max(map(len, kinds), default=0)):
        mixed += [kind[place] for kind in kinds if place < len(kind)]
    return mixed
