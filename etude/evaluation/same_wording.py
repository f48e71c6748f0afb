"""Baseline: the answer of training questions with the same wording, ignoring names and numbers: the accuracy of memorised templates.

Every capitalised word and number of a question is replaced by its rank of first appearance, in the answer too. Items of a family that
differ only in names then share one form. A family with few forms can be memorised even if it has many items.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from etude.tasks.task import Task

_NAMES = re.compile(r"[-+]?\d+(?:[.,]\d+)*|\b[A-Z]\w*")


def same_wording_answers(train: Sequence[Task], tasks: Sequence[Task]) -> list[str | None]:
    """Return for every task the (first) most frequent answer of training tasks of the same form, with the task's own names; None without
    one.

    >>> same_wording_answers([Task("Ann is Bob's wife. Who is Bob?", "Ann's husband")], [Task("Eve is Jim's wife. Who is Jim?", "?")])
    ["Eve's husband"]
    """
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for task in train:
        if task.answer is not None:
            form, names = _form(task.question)
            answers[form][_with_places(task.answer, names)] += 1
    found: list[str | None] = []
    for task in tasks:
        form, names = _form(task.question)
        common = answers[form].most_common(1) if form in answers else []
        found.append(_with_names(common[0][0], names) if common else None)
    return found


def _form(question: str) -> tuple[str, list[str]]:
    """Replace names and numbers by placeholders; returns the form, and the names in order of first appearance."""
    names = list(dict.fromkeys(_NAMES.findall(question)))
    return _with_places(question, names), names


def _with_places(text: str, names: Sequence[str]) -> str:
    places = {name: f"\0{place}\0" for place, name in enumerate(names)}
    return _NAMES.sub(lambda match: places.get(match[0], match[0]), text)


def _with_names(text: str, names: Sequence[str]) -> str:
    return re.sub(r"\0(\d+)\0", lambda match: names[int(match[1])] if int(match[1]) < len(names) else match[0], text)
