"""Write passages from a model's own verified attempts: self-improvement without a teacher.

The model attempts each problem several times with the text in the prompt. Of the right attempts, the one whose reason shares most rare
words with the knowledge is kept, without sentences that give an answer or name a choice by its letter. What the problems share is written
by rule. Problems without a right attempt that has a reason are left out, and so are free-form ones: shared words verify nothing. Training
on own right answers is STaR's (Zelikman et al. 2022, arXiv 2203.14465); here the text is in the prompt during attempts, and not when the
model is asked later.
"""

import re
from collections.abc import Callable, Sequence

from etude.knowledge.passages import Assignment, Writer, Written, is_right, is_worded_freely, sentences_of
from etude.knowledge.rarity import Rarity
from etude.knowledge.writers.rules import enlightenment
from etude.tasks.answers import marked_answer
from etude.tasks.task import Task, canonical_words

Attempts = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""A function from prompts to several texts for each, in order."""

_SENTENCES = 6
"""Sentences of the knowledge in the prompt."""
_LETTER = re.compile(r"\b(?:(?i:option|choice|answer)|is|not)\s{1,2}\(?[A-Z]\)?(?=[\s.,;:!]|$)|\([A-Z]\)|^[B-Z] (?=is\b|was\b)")
"""A choice named by its letter; some sentences on blood of type O match too."""
_LEAST_WORDS = 5
"""Least words of a reason."""


def attempted(attempts: Attempts, rarity: Rarity) -> Writer:
    """Return a writer that uses the model's own right attempts."""

    def write(assignments: Sequence[Assignment]) -> list[Written]:
        asked = [(each, task) for each in assignments for task in each.tasks if not is_worded_freely(task)]
        found = iter(attempts([open_book(each, task, rarity) for each, task in asked]))
        written = []
        for assignment in assignments:
            about = set(canonical_words(assignment.knowledge.text))
            texts = [[] if is_worded_freely(task) else next(found) for task in assignment.tasks]
            reasons = [best_reason(own, task, about, rarity) for own, task in zip(texts, assignment.tasks, strict=True)]
            solved = tuple(task for task, reason in zip(assignment.tasks, reasons, strict=True) if reason is not None)
            shared = enlightenment(Assignment(assignment.knowledge, solved), rarity)
            written.append(Written(tuple(reasons), shared) if solved else Written(problem="no right attempt with a reason"))
        return written

    return write


def open_book(assignment: Assignment, task: Task, rarity: Rarity) -> str:
    """Build the prompt of a problem: the sentences that share most rare words with it, then the question."""
    sentences, asked = assignment.knowledge.sentences, set(canonical_words(task.question))
    shares = [rarity.shared(asked, set(canonical_words(sentence))) for sentence in sentences]
    best = sorted(sorted(range(len(sentences)), key=lambda place: -shares[place])[:_SENTENCES])
    text = " ".join(sentences[place] for place in best)
    ending = 'Explain in a few sentences by the text. Then end with "The answer is" and the answer.'
    return "\n\n".join(filter(None, (assignment.knowledge.heading, text, task.question, ending)))


def best_reason(texts: Sequence[str], task: Task, about: set[str], rarity: Rarity) -> str | None:
    """Return the reason of the right attempt that shares most rare words with the knowledge, or None."""
    right = (reason_of(text) for text in dict.fromkeys(texts) if is_right(text, task, 1.0))
    told = [reason for reason in right if len(reason.split()) >= _LEAST_WORDS]
    return max(told, key=lambda reason: rarity.shared(about, set(canonical_words(reason))), default=None)


def reason_of(text: str) -> str:
    """Return the sentences of an attempt that neither give its answer nor name a choice by its letter, since a passage shows no letters.

    >>> reason_of("The node sets the rhythm. So it leads. The answer is B.")
    'The node sets the rhythm. So it leads.'
    """
    parts = [part for line in text.splitlines() for part in sentences_of(line)]
    return " ".join(part for part in parts if marked_answer(part) is None and not _LETTER.search(part))
