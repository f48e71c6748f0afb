"""Passages: how a piece of knowledge is used, as text to learn from.

A passage joins several solved problems on one piece of knowledge, for each a paragraph with the answer and its reason, and last a
paragraph on what they share and where each is special (TRAIT, 2024.emnlp-main.1162, whose passages a large model writes). Who writes is a
function behind one interface (`etude.knowledge.writers`),

    writer(assignments) -> for each what was written, or why nothing was

and what is written is checked: it may not contradict a gold answer, hold a question that is asked later, or repeat another passage. What
is rejected is kept with its reason, beside what is not.

Departure: problems are of one piece of knowledge by their words (`etude.knowledge.rarity`), not by what a model takes them for.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from etude.knowledge.duplicates import Seen
from etude.knowledge.leaks import Leaks
from etude.tasks.answers import answer_form
from etude.tasks.choices import choices_of, without_choices
from etude.tasks.task import Task, canonical_words
from etude.tasks.verifiers import VERIFIERS

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\u201c\"(])")
_LEAST_WORDS, _MOST_WORDS = 6, 60
"""Of a sentence that may be a reason."""
_AT_ONCE = 32
"""Assignments that a writer gets together, and at most so many that a kill loses."""
_LONGEST_SAID = 4000
_WORDED_FREELY = 4
"""Words from which on an answer that is to be exact may be worded otherwise."""

Row = dict[str, Any]
"""`place` of the assignment, `sources`, and `text`; or `rejected`, the reason, with what was `said`."""
NO_REPLY = "no reply"
"""Why there is no passage where a writer did not answer, who may do so another time."""


@dataclass(frozen=True)
class Knowledge:
    """A piece of knowledge: a heading and what is said below it."""

    heading: str
    text: str
    origin: str

    @property
    def sentences(self) -> list[str]:
        """Of prose: neither headings nor lists."""
        return [part for line in self.text.split("\n") for part in sentences_of(line) if _LEAST_WORDS <= len(part.split()) <= _MOST_WORDS]


def sentences_of(line: str) -> list[str]:
    """The sentences of a line that come to an end."""
    return [part for part in (" ".join(part.split()) for part in _SENTENCE.split(line)) if part.endswith((".", "!"))]


@dataclass(frozen=True)
class Assignment:
    """What a passage is to be on."""

    knowledge: Knowledge
    tasks: tuple[Task, ...]


class Written(NamedTuple):
    """What a writer made of an assignment."""

    reasons: tuple[str | None, ...] = ()
    """For each problem why its answer is right; None leaves the problem out."""
    shared: str = ""
    """What the problems share, and where each is special."""
    answers: tuple[str, ...] = ()
    """What the writer takes for the right answers; nothing where it copies the gold ones."""
    problem: str = ""
    """Why nothing was written, in words that are the same for the same cause."""
    said: str = ""
    """What came instead, whole."""


Writer = Callable[[Sequence[Assignment]], Sequence[Written]]


def answer_text(task: Task) -> str:
    """The right answer in words: of a question with choices the choice."""
    choices = choices_of(task)
    return choices[ord(task.answer) - ord("A")] if choices and task.answer else task.answer or ""


def is_worded_freely(task: Task) -> bool:
    """Whether the right answer is one of many wordings: a sentence, or what the verifier `words` compares."""
    gold = task.answer or ""
    is_sentence = answer_form(gold) == "text" and sum(word.isalpha() and len(word) > 1 for word in canonical_words(gold)) >= _WORDED_FREELY
    return task.verifier == "words" or (task.verifier == "exact" and is_sentence)


def is_right(said: str, task: Task, least: float) -> bool:
    """Whether an answer is the gold one, by the task's verifier, one of `CHEAP`, a name but for articles; where that is worded freely,
    whether the F1 of their words is `least`.
    """
    is_name = task.verifier == "exact" and (task.answer or "").replace(" ", "").isalpha()
    if is_name or is_worded_freely(task):
        return (VERIFIERS["words"](said, task).score or 0.0) >= (least if is_worded_freely(task) else 1.0)
    return VERIFIERS[task.verifier](said, task).is_right


def compose(assignment: Assignment, written: Written) -> str:
    """The passage: heading, each problem with its gold answer and the reason, and what they share."""
    heading = assignment.knowledge.heading
    parts = [heading] if heading else []
    for task, reason in zip(assignment.tasks, written.reasons, strict=True):
        if reason is not None:
            question, answer = without_choices(task.question, choices_of(task)), answer_text(task)
            parts.append(f"Question: {question}\nAnswer: {answer}{'' if answer.endswith(('.', '!', '?')) else '.'} {reason}")
    return "\n\n".join([*parts, written.shared] if written.shared else parts)


@dataclass
class Writing:
    """Has passages written, and checks them."""

    writer: Writer
    leaks: Leaks
    similarity: float = 0.8
    min_agreement: float = 0.3
    """F1 of words at which an answer that may be worded freely agrees with the gold one."""

    def rows(self, assignments: Sequence[Assignment], kept: Sequence[Row] = ()) -> Iterator[Row]:
        """A row for every assignment that none of the kept rows is of; they name its `place`."""
        seen = Seen(self.similarity)
        for row in kept:
            if "text" in row:
                seen.admit(row["place"], canonical_words(row["text"]))
        done = {row["place"] for row in kept}
        missing = [place for place in range(len(assignments)) if place not in done]
        for start in range(0, len(missing), _AT_ONCE):
            places = missing[start : start + _AT_ONCE]
            batch = [assignments[place] for place in places]
            for place, assignment, written in zip(places, batch, self.writer(batch), strict=True):
                yield {"place": place} | self._row(assignment, written, seen, place)

    def _row(self, assignment: Assignment, written: Written, seen: Seen, key: int) -> Row:
        known = [task for task, reason in zip(assignment.tasks, written.reasons, strict=False) if reason is not None]
        row: Row = {"sources": [assignment.knowledge.origin, *(task.origin for task in (known or assignment.tasks))]}
        if written.problem:
            return row | {"rejected": written.problem, "said": written.said[:_LONGEST_SAID]}
        text = compose(assignment, written)
        flaw = self._flaw(text, assignment, written, seen, key)
        return row | ({"rejected": flaw, "said": text} if flaw else {"text": text})

    def _flaw(self, text: str, assignment: Assignment, written: Written, seen: Seen, key: int) -> str | None:
        """Why a passage is not good enough, if it is not."""
        pairs = zip(written.answers, assignment.tasks, strict=True) if written.answers else ()
        if not all(is_right(said, task, self.min_agreement) for said, task in pairs):
            return "contradicts the gold answer"
        words = canonical_words(text)
        if self.leaks.worst(words):
            return "holds a question that is asked"
        return "repeats another" if seen.admit(key, words) is not None else None


def rejected(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many rows were rejected for each reason, most first."""
    reasons = [row["rejected"] for row in rows if "rejected" in row]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason))}
