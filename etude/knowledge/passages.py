"""Passages: training text that applies a piece of knowledge to solved problems.

A passage joins several solved problems on one piece of knowledge. Each has a paragraph with its answer and the reason; a last paragraph
describes what they share and how each is special (TRAIT, 2024.emnlp-main.1162, where a large model writes them). The writer is a function
(`etude.knowledge.writers`),

    writer(assignments) -> for each assignment the text, or the reason why there is none

whose text is checked: it must not contradict a gold answer, contain an evaluation question, or repeat another passage. Rejected text is
kept too, with the reason.

Departure: problems are matched to a piece of knowledge by their words (`etude.knowledge.idf`), not by a model.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.duplicates import NearDuplicateIndex
from etude.tasks.answers import answer_form
from etude.tasks.choices import choices_of, remove_choices
from etude.tasks.task import Task, canonical_words
from etude.tasks.verifiers import VERIFIERS

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\u201c\"(])")
_LEAST_WORDS, _MOST_WORDS = 6, 60
"""Length of a sentence that may be a reason, in words."""
_AT_ONCE = 32
"""Number of assignments in one call of a writer; a killed run loses at most these."""
_LONGEST_SAID = 4000
_WORDED_FREELY = 4
"""Number of words from which an answer of the verifier `exact` counts as free-form."""

Row = dict[str, Any]
"""The assignment's `place` and `sources`, and its `text`, or `rejected` (the reason) with what it `said`."""
NO_REPLY = "no reply"
"""The rejection reason if a writer did not answer; a resumed run asks again."""


@dataclass(frozen=True)
class Knowledge:
    """A piece of knowledge: a heading and the text below it."""

    heading: str
    text: str
    origin: str

    @property
    def sentences(self) -> list[str]:
        """The sentences of the prose, without headings and lists."""
        return [
            part for line in self.text.split("\n") for part in split_sentences(line) if _LEAST_WORDS <= len(part.split()) <= _MOST_WORDS
        ]


def split_sentences(line: str) -> list[str]:
    """Return the complete sentences of a line."""
    return [part for part in (" ".join(part.split()) for part in _SENTENCE.split(line)) if part.endswith((".", "!"))]


@dataclass(frozen=True)
class Assignment:
    """The piece of knowledge and the problems of one passage."""

    knowledge: Knowledge
    tasks: tuple[Task, ...]


class WriterOutput(NamedTuple):
    """The output of a writer for one assignment."""

    reasons: tuple[str | None, ...] = ()
    """The reason for each problem's answer; None leaves the problem out."""
    shared: str = ""
    """What the problems share, and how each is special."""
    answers: tuple[str, ...] = ()
    """The answers that the writer found; empty if it copies the gold ones."""
    problem: str = ""
    """Why nothing was written; the same text for the same cause."""
    said: str = ""
    """The complete rejected output."""


Writer = Callable[[Sequence[Assignment]], Sequence[WriterOutput]]


def answer_text(task: Task) -> str:
    """Return the correct answer as text; for multiple choice, the text of the choice."""
    choices = choices_of(task)
    return choices[ord(task.answer) - ord("A")] if choices and task.answer else task.answer or ""


def is_free_form(task: Task) -> bool:
    """Tell whether the gold answer is free-form: a sentence, or an answer of the verifier `words`."""
    gold = task.answer or ""
    is_sentence = answer_form(gold) == "text" and sum(word.isalpha() and len(word) > 1 for word in canonical_words(gold)) >= _WORDED_FREELY
    return task.verifier == "words" or (task.verifier == "exact" and is_sentence)


def agrees_with_gold(said: str, task: Task, least: float) -> bool:
    """Tell whether an answer agrees with the gold one.

    The task's verifier decides, which must be one of `CHEAP`; articles are ignored in a name. A free-form answer needs an F1 of words of at
    least `least`.
    """
    is_name = task.verifier == "exact" and (task.answer or "").replace(" ", "").isalpha()
    if is_name or is_free_form(task):
        return (VERIFIERS["words"](said, task).score or 0.0) >= (least if is_free_form(task) else 1.0)
    return VERIFIERS[task.verifier](said, task).is_right


def compose(assignment: Assignment, written: WriterOutput) -> str:
    """Join the passage: heading, each problem with its gold answer and the reason, and what they share."""
    heading = assignment.knowledge.heading
    parts = [heading] if heading else []
    for task, reason in zip(assignment.tasks, written.reasons, strict=True):
        if reason is not None:
            question, answer = remove_choices(task.question, choices_of(task)), answer_text(task)
            parts.append(f"Question: {question}\nAnswer: {answer}{'' if answer.endswith(('.', '!', '?')) else '.'} {reason}")
    return "\n\n".join([*parts, written.shared] if written.shared else parts)


@dataclass
class PassageBuilder:
    """Calls a writer for passages, and checks them."""

    writer: Writer
    leaks: ContaminationCheck
    similarity: float = 0.8
    min_agreement: float = 0.3
    """F1 of words at which a free-form answer agrees with the gold one."""

    def rows(self, assignments: Sequence[Assignment], kept: Sequence[Row] = ()) -> Iterator[Row]:
        """Yield a row for every assignment without one in `kept`, by its `place`."""
        seen = NearDuplicateIndex(self.similarity)
        for row in kept:
            if "text" in row:
                seen.add(row["place"], canonical_words(row["text"]))
        done = {row["place"] for row in kept}
        missing = [place for place in range(len(assignments)) if place not in done]
        for start in range(0, len(missing), _AT_ONCE):
            places = missing[start : start + _AT_ONCE]
            batch = [assignments[place] for place in places]
            for place, assignment, written in zip(places, batch, self.writer(batch), strict=True):
                yield {"place": place} | self._row(assignment, written, seen, place)

    def _row(self, assignment: Assignment, written: WriterOutput, seen: NearDuplicateIndex, key: int) -> Row:
        known = [task for task, reason in zip(assignment.tasks, written.reasons, strict=False) if reason is not None]
        row: Row = {"sources": [assignment.knowledge.origin, *(task.origin for task in (known or assignment.tasks))]}
        if written.problem:
            return row | {"rejected": written.problem, "said": written.said[:_LONGEST_SAID]}
        text = compose(assignment, written)
        flaw = self._flaw(text, assignment, written, seen, key)
        return row | ({"rejected": flaw, "said": text} if flaw else {"text": text})

    def _flaw(self, text: str, assignment: Assignment, written: WriterOutput, seen: NearDuplicateIndex, key: int) -> str | None:
        """Return why a passage is rejected, or None."""
        pairs = zip(written.answers, assignment.tasks, strict=True) if written.answers else ()
        if not all(agrees_with_gold(said, task, self.min_agreement) for said, task in pairs):
            return "contradicts the gold answer"
        words = canonical_words(text)
        if self.leaks.find_worst(words):
            return "holds a question that is asked"
        return "repeats another" if seen.add(key, words) is not None else None


def count_rejections(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the rejected rows by reason, most frequent first."""
    reasons = [row["rejected"] for row in rows if "rejected" in row]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons), key=lambda reason: (-reasons.count(reason), reason))}
