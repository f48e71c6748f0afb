"""An answer that goes by several names: which a row of data lists, and whether a text says one of them."""

from collections.abc import Sequence
from dataclasses import replace

from etude.tasks.answers import bounded, parse_list
from etude.tasks.task import Task, canonical_words

_ARTICLES = frozenset({"a", "an", "the"})


def with_aliases(task: Task) -> Task:
    """The task with the first of its answer's names as the answer, and all of them as `metadata["aliases"]`: a JSON list, or a text that is
    parted by semicolons.

    >>> with_aliases(Task("Who?", "Mark Twain; Samuel Clemens")).metadata
    {'aliases': ['Mark Twain', 'Samuel Clemens']}
    """
    if task.answer is None or "aliases" in task.metadata:
        return task
    listed = parse_list(task.answer.strip())
    found = [str(name).strip() for name in (task.answer.split(";") if listed is None else listed)]
    names = [name for name in dict.fromkeys(found) if name]
    return replace(task, answer=names[0] if names else "", metadata={**task.metadata, "aliases": names})


def aliases_of(task: Task) -> list[str]:
    """The names of a task's answer."""
    named = with_aliases(task).metadata.get("aliases")
    return [str(name) for name in named] if isinstance(named, list) else []


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
