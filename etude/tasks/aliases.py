"""Answers with several accepted names (aliases): reads the names from a task, and finds one of them in a text."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from etude.tasks.answers import last_characters, parse_list
from etude.tasks.task import Task, canonical_words

_ARTICLES = frozenset({"a", "an", "the"})


def with_aliases(task: Task) -> Task:
    """Return the task with its first alias as the answer, and all aliases as `metadata["aliases"]`.

    The answer may be a JSON list, or a text with semicolons between the names; names from a column `aliases` are added after them. A name
    without words (an emoji, say) is dropped unless there is no other.

    >>> with_aliases(Task("Who?", "Mark Twain; Samuel Clemens")).metadata
    {'aliases': ['Mark Twain', 'Samuel Clemens']}
    """
    if task.answer is None:
        return task
    every = list(dict.fromkeys([*_names(task.answer), *_names(task.metadata.get("aliases"))]))
    names = [name for name in every if plain_words(name)] or every
    return replace(task, answer=names[0] if names else "", metadata={**task.metadata, "aliases": names})


def aliases_of(task: Task) -> list[str]:
    """Return all accepted names of a task's answer."""
    return list(with_aliases(task).metadata.get("aliases", []))


def _names(value: Any) -> list[str]:
    listed = parse_list(value.strip()) if isinstance(value, str) else value
    found = value.split(";") if isinstance(value, str) and listed is None else listed if isinstance(listed, list) else []
    return [name for each in found if (name := str(each).strip())]


def find_alias(text: str, names: Sequence[str]) -> str | None:
    """Return the first name whose words are in the text in this order, or None.

    Case, punctuation and articles are ignored (articles count if the name has no other words).

    >>> find_alias("It was written by the Samuel Clemens, I think.", ["Mark Twain", "Samuel Clemens"])
    'Samuel Clemens'
    """
    said = plain_words(text)
    bare = [word for word in said if word not in _ARTICLES]
    for name in names:
        every = plain_words(name)
        wanted = [word for word in every if word not in _ARTICLES]
        within, words = (bare, wanted) if wanted else (said, every)
        if words and f" {' '.join(words)} " in f" {' '.join(within)} ":
            return name
    return None


def plain_words(text: str) -> list[str]:
    """Return the words and numbers of a text, in one case and without punctuation."""
    return [word for word in canonical_words(last_characters(text)) if word[0].isalnum()]
