"""The data class of a task: a question, its gold answer, and the verifier that checks answers.

A task is plain data that any process can read. It holds text, not token ids, which depend on the tokenizer and are created by
`etude.rollouts.prompts`. Its canonical key finds duplicates and the overlap of training with evaluation items.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MAX_CHARACTERS = 2_000_000
"""Maximum length of a question or answer, in characters (about half a million tokens); longer ones are refused before tokenisation."""

_WORD = re.compile(r"\d+(?:\.\d+)?|\w+|[^\w\s]")
_ASCII = str.maketrans({**dict.fromkeys("\u2018\u2019\u201a\u201b", "'"), **dict.fromkeys("\u201c\u201d\u201e\u201f", '"'), "\u2212": "-"})
_RAISED = re.compile("([\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u215f]+)")


@dataclass(frozen=True)
class Task:
    """A problem with its gold answer.

    >>> Task("What is 2 + 2?", "4").key == Task("what is  2+2 ?", "4").key
    True
    """

    prompt: str | tuple[Mapping[str, str], ...]
    """The question as text, or chat messages (`role`, `content`) that end with the user's."""
    answer: str | None = None
    """The gold answer, or None if it is unknown."""
    verifier: str = "exact"
    """A name in `etude.tasks.verifiers.VERIFIERS`, or `file.py:function`."""
    worked: str | None = None
    """A demonstration as the model should write it (worked steps, then the answer); the warm start trains on it."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Further data for the verifier or a study; JSON values only."""
    origin: str = ""
    """Origin of the task, for messages: `train.jsonl:12`, `chain_sum[3]`."""
    instruction: str = ""
    """Text on how to answer, appended to the question in the prompt. It is the same for all tasks and so not part of the key."""

    @property
    def question(self) -> str:
        """The text of the last message: the question."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[-1]["content"]

    @property
    def key(self) -> str:
        """Canonical key: equal for prompts that differ only in case, spacing, system message and Unicode form.

        The Unicode form is NFKC, with curly quotation marks and the minus sign converted to ASCII. Punctuation counts, since it carries the
        meaning of grids and brackets. Raises UnicodeEncodeError for a lone surrogate.
        """
        return hashlib.blake2b(" ".join(self.words).encode(), digest_size=8).hexdigest()

    @property
    def words(self) -> list[str]:
        """The words, numbers and marks of the prompt, in the form that the key compares."""
        turns = [self.prompt] if isinstance(self.prompt, str) else [m["content"] for m in self.prompt if m["role"] != "system"]
        return canonical_words("\n".join(turns))


def with_system(tasks: Sequence[Task], system: str | None) -> list[Task]:
    """Return tasks with a system message before their own messages, unless they have one."""
    if system is None:
        return list(tasks)
    return [replace(task, prompt=_system_prompt(task, system)) for task in tasks]


def _system_prompt(task: Task, system: str) -> tuple[Any, ...]:
    messages = ({"role": "user", "content": task.prompt},) if isinstance(task.prompt, str) else task.prompt
    return messages if messages[0]["role"] == "system" else ({"role": "system", "content": system}, *messages)


def text_problem(text: str) -> str | None:
    """Describe why a text cannot be a question or an answer (no valid Unicode, or too long); None if nothing is wrong.

    >>> text_problem("a\\ud800")
    'is not valid Unicode: surrogates not allowed at character 1'
    """
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text):,} characters, the most is {MAX_CHARACTERS:,}: cut it"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"is not valid Unicode: {error.reason} at character {error.start}"
    return None


def canonical_words(text: str) -> list[str]:
    """Split a text into words, numbers and marks, in one case and one Unicode form.

    >>> canonical_words("Don\u2019t pay 3.50!")
    ['don', "'", 't', 'pay', '3.50', '!']
    """
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    """Convert a text to one case and one Unicode form; superscript digits and fractions stay, since NFKC would turn 5\u00b2 into 52."""
    pieces = _RAISED.split(text.translate(_ASCII))
    return "".join(piece if _RAISED.match(piece) else _folded(piece) for piece in pieces)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
