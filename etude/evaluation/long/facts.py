"""bAbI facts hidden between the sentences of a book (BABILong, Kuratov et al. 2024, NeurIPS, arXiv 2406.10149)."""

import re
from collections.abc import Callable
from pathlib import Path
from random import Random

from etude.errors import UserError
from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.task import LongTask

Story = tuple[list[str], str, str]
"""Facts in order, a question, its answer."""


def babi_generator(path: Path) -> Callable[[Random, Haystack, int], LongTask]:
    """Create a generator of questions about a bAbI story, with the facts before each.

    Raises UserError for a file without questions.
    """
    stories = read_babi(path)

    def task_from_babi(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
        facts, question, answer = draw.choice(stories)
        context, depths = haystack.around(draw, facts, tokens)
        return LongTask("facts", context, question, "The answer is", (answer,), depth=depths[-1])

    return task_from_babi


def read_babi(path: Path) -> list[Story]:
    """Read every question of a bAbI file with the facts before it.

    Raises UserError for a file of another format or without questions.
    """
    found: list[Story] = []
    facts: list[str] = []
    for line in path.read_text(encoding="utf8").splitlines():
        number, _, text = line.partition(" ")
        if not number.isdigit():
            raise UserError(f"{path} is no file of bAbI: a line begins with a number, but one is {line[:60]!r}")
        facts = [] if number == "1" else facts
        question, *rest = re.split(r"[\t|]", text)  # copies of the data set use either separator
        if rest:
            found.append((list(facts), question.strip(), rest[0].replace(",", " ").strip()))
        else:
            facts.append(text.strip())
    if not found:
        raise UserError(f"{path} has no question: name a file of bAbI")
    return found
