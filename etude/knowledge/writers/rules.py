"""Write passages without a model, from problems, answers and sentences of the knowledge.

The reason for an answer is the sentence that shares most rare words with the problem. The shared paragraph names the rare words that all
problems have, with a sentence of the knowledge.
"""

from collections.abc import Sequence

from etude.knowledge.passages import Assignment, Writer, Written
from etude.knowledge.rarity import Rarity, words_of
from etude.tasks.choices import choices_of
from etude.tasks.task import canonical_words


def rule_made(rarity: Rarity) -> Writer:
    """Return a writer that follows rules and needs no model."""
    return lambda assignments: [_written(assignment, rarity) for assignment in assignments]


def _written(assignment: Assignment, rarity: Rarity) -> Written:
    sentences, taken = assignment.knowledge.sentences, list[str]()
    for task in assignment.tasks:
        found = telling(sentences, words_of(task), rarity, [sentence for sentence in sentences if sentence not in taken])
        if found is None:
            return Written(problem="nothing to say")
        taken.append(found)
    return Written(tuple(taken), enlightenment(assignment, rarity))


def telling(sentences: Sequence[str], wanted: set[str], rarity: Rarity, free: Sequence[str] | None = None) -> str | None:
    """Return the sentence (of the free ones) that shares most rare words with the wanted words, the first of equals."""
    return max(
        sentences if free is None else free, key=lambda sentence: rarity.shared(wanted, set(canonical_words(sentence))), default=None
    )


def enlightenment(assignment: Assignment, rarity: Rarity) -> str:
    """Write what the problems share, and what each is about alone; "" for a single problem."""
    knowledge, tasks = assignment.knowledge, assignment.tasks
    if len(tasks) < 2:
        return ""
    wanted_by = [words_of(task) for task in tasks]
    about = _listed([*([knowledge.heading] if knowledge.heading else ()), *rarity.rarest(set.intersection(*wanted_by))])
    central = telling(knowledge.sentences, set().union(*wanted_by), rarity) or ""
    lines = [f"What these questions share: {f'all are about {about}. ' if about else ''}{central}".rstrip()]
    for number, (task, wanted) in enumerate(zip(tasks, wanted_by, strict=True), 1):
        others = set().union(*(other for other in wanted_by if other is not wanted))
        own = rarity.rarest(wanted - others)
        kind = "asks which of several answers is right" if choices_of(task) else "asks for an explanation"
        lines.append(f"Question {number} {kind}" + (f"; its own matter is {_listed(own)}." if own else "."))
    return " ".join(lines)


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
