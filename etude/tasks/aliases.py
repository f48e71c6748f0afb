"""An answer that goes by several names: which a row of data lists, and whether a text says one of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from etude.tasks.answers import bounded, parse_list
from etude.tasks.task import Task, canonical_words

_ARTICLES = frozenset({"a", "an", "the"})


def with_aliases(task: Task) -> Task:
    """The task with the first of its answer's names as the answer, and all of them as `metadata["aliases"]`: a JSON list, or a text that is
    parted by semicolons; those that a row has in a column `aliases` come behind. A name without words, such as a picture of the thing, is
    said by nobody, and counts only where there is no other.

    >>> with_aliases(Task("Who?", "Mark Twain; Samuel Clemens")).metadata
    {'aliases': ['Mark Twain', 'Samuel Clemens']}
    """
    if task.answer is None:
        return task
    every = list(dict.fromkeys([*_names(task.answer), *_names(task.metadata.get("aliases"))]))
    names = [name for name in every if words_said(name)] or every
    return replace(task, answer=names[0] if names else "", metadata={**task.metadata, "aliases": names})


def aliases_of(task: Task) -> list[str]:
    """The names of a task's answer."""
    return list(with_aliases(task).metadata.get("aliases", []))


def _names(value: Any) -> list[str]:
    listed = parse_list(value.strip()) if isinstance(value, str) else value
    found = value.split(";") if isinstance(value, str) and listed is None else listed if isinstance(listed, list) else []
    return [name for each in found if (name := str(each).strip())]


def said_alias(text: str, names: Sequence[str]) -> str | None:
    """The first of the names whose words stand in a text, one behind another, but for case, marks and articles, unless there are no others.

    >>> said_alias("It was written by the Samuel Clemens, I think.", ["Mark Twain", "Samuel Clemens"])
    'Samuel Clemens'
    """
    said = words_said(text)
    bare = [word for word in said if word not in _ARTICLES]
    for name in names:
        every = words_said(name)
        wanted = [word for word in every if word not in _ARTICLES]
        within, words = (bare, wanted) if wanted else (said, every)
        if words and f" {' '.join(words)} " in f" {' '.join(within)} ":
            return name
    return None


def words_said(text: str) -> list[str]:
    """The words and numbers of a text, in one case."""
    return [word for word in canonical_words(bounded(text)) if word[0].isalnum()]
