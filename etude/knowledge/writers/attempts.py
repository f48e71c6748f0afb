"""Writes passages from a model's own verified attempts: self-improvement without a teacher.

The model attempts each problem several times with the text in the prompt. The correct attempt whose reason shares most rare words with the
knowledge is kept, without sentences that give an answer or name a choice by its letter. A rule writes what the problems share. Problems
without a correct attempt with a reason are skipped, and so are free-form ones, since shared words verify nothing. Training on own correct
answers is from STaR (Zelikman et al. 2022, arXiv 2203.14465); here the text is in the prompt only during attempts, not when the model is
asked later.
"""

import re
from collections.abc import Callable, Sequence

from etude.knowledge.idf import InverseDocumentFrequency
from etude.knowledge.passages import Assignment, Writer, WriterOutput, agrees_with_gold, is_free_form, split_sentences
from etude.knowledge.writers.rules import describe_shared
from etude.tasks.answers import marked_answer
from etude.tasks.task import Task, canonical_words

Attempts = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""A function from prompts to several texts for each, in order."""

_SENTENCES = 6
"""Number of sentences of the knowledge in the prompt."""
_LETTER = re.compile(r"\b(?:(?i:option|choice|answer)|is|not)\s{1,2}\(?[A-Z]\)?(?=[\s.,;:!]|$)|\([A-Z]\)|^[B-Z] (?=is\b|was\b)")
"""A choice named by its letter; some sentences on blood of type O match too."""
_LEAST_WORDS = 5
"""Minimum number of words of a reason."""


def attempts_writer(attempts: Attempts, idf: InverseDocumentFrequency) -> Writer:
    """Create a writer that uses the model's own correct attempts."""

    def write(assignments: Sequence[Assignment]) -> list[WriterOutput]:
        asked = [(each, task) for each in assignments for task in each.tasks if not is_free_form(task)]
        found = iter(attempts([open_book_prompt(each, task, idf) for each, task in asked]))
        written = []
        for assignment in assignments:
            about = set(canonical_words(assignment.knowledge.text))
            texts = [[] if is_free_form(task) else next(found) for task in assignment.tasks]
            reasons = [best_reason(attempted, task, about, idf) for attempted, task in zip(texts, assignment.tasks, strict=True)]
            solved = tuple(task for task, reason in zip(assignment.tasks, reasons, strict=True) if reason is not None)
            shared = describe_shared(Assignment(assignment.knowledge, solved), idf)
            written.append(WriterOutput(tuple(reasons), shared) if solved else WriterOutput(problem="no right attempt with a reason"))
        return written

    return write


def open_book_prompt(assignment: Assignment, task: Task, idf: InverseDocumentFrequency) -> str:
    """Build the prompt of a problem: the sentences that share most rare words with it, then the question."""
    sentences, asked = assignment.knowledge.sentences, set(canonical_words(task.question))
    shares = [idf.shared_weight(asked, set(canonical_words(sentence))) for sentence in sentences]
    best = sorted(sorted(range(len(sentences)), key=lambda place: -shares[place])[:_SENTENCES])
    text = " ".join(sentences[place] for place in best)
    ending = 'Explain in a few sentences by the text. Then end with "The answer is" and the answer.'
    return "\n\n".join(filter(None, (assignment.knowledge.heading, text, task.question, ending)))


def best_reason(texts: Sequence[str], task: Task, about: set[str], idf: InverseDocumentFrequency) -> str | None:
    """Return the reason of the correct attempt that shares most rare words with the knowledge, or None."""
    right = (extract_reason(text) for text in dict.fromkeys(texts) if agrees_with_gold(text, task, 1.0))
    reasons = [reason for reason in right if len(reason.split()) >= _LEAST_WORDS]
    return max(reasons, key=lambda reason: idf.shared_weight(about, set(canonical_words(reason))), default=None)


def extract_reason(text: str) -> str:
    """Return the sentences of an attempt that neither give its answer nor name a choice by its letter, since a passage shows no letters.

    >>> extract_reason("The node sets the rhythm. So it leads. The answer is B.")
    'The node sets the rhythm. So it leads.'
    """
    parts = [part for line in text.splitlines() for part in split_sentences(line)]
    return " ".join(part for part in parts if marked_answer(part) is None and not _LETTER.search(part))
