"""Writes passages without a model, from problems, answers and sentences of the knowledge.

The reason for an answer is the sentence that shares most rare words with the problem. The shared paragraph names the rare words that all
problems have, with a sentence of the knowledge.
"""

from collections.abc import Sequence

from etude.knowledge.idf import InverseDocumentFrequency, problem_words
from etude.knowledge.passages import Assignment, Writer, WriterOutput
from etude.tasks.choices import choices_of
from etude.tasks.task import canonical_words


def rules_writer(idf: InverseDocumentFrequency) -> Writer:
    """Create a writer that follows rules and needs no model."""
    return lambda assignments: [_written(assignment, idf) for assignment in assignments]


def _written(assignment: Assignment, idf: InverseDocumentFrequency) -> WriterOutput:
    sentences, taken = assignment.knowledge.sentences, list[str]()
    for task in assignment.tasks:
        found = best_sentence(sentences, problem_words(task), idf, [sentence for sentence in sentences if sentence not in taken])
        if found is None:
            return WriterOutput(problem="nothing to say")
        taken.append(found)
    return WriterOutput(tuple(taken), describe_shared(assignment, idf))


def best_sentence(
    sentences: Sequence[str], wanted: set[str], idf: InverseDocumentFrequency, free: Sequence[str] | None = None
) -> str | None:
    """Return the first sentence (of the free ones) that shares most rare words with the wanted words."""
    return max(
        sentences if free is None else free, key=lambda sentence: idf.shared_weight(wanted, set(canonical_words(sentence))), default=None
    )


def describe_shared(assignment: Assignment, idf: InverseDocumentFrequency) -> str:
    """Describe what the problems share, and what each is about; "" for a single problem."""
    knowledge, tasks = assignment.knowledge, assignment.tasks
    if len(tasks) < 2:
        return ""
    wanted_by = [problem_words(task) for task in tasks]
    about = _listed([*([knowledge.heading] if knowledge.heading else ()), *idf.top_words(set.intersection(*wanted_by))])
    central = best_sentence(knowledge.sentences, set().union(*wanted_by), idf) or ""
    lines = [f"What these questions share: {f'all are about {about}. ' if about else ''}{central}".rstrip()]
    for number, (task, wanted) in enumerate(zip(tasks, wanted_by, strict=True), 1):
        others = set().union(*(other for other in wanted_by if other is not wanted))
        distinctive = idf.top_words(wanted - others)
        kind = "asks which of several answers is right" if choices_of(task) else "asks for an explanation"
        lines.append(f"Question {number} {kind}" + (f"; its own matter is {_listed(distinctive)}." if distinctive else "."))
    return " ".join(lines)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
