"""Answer extraction: finds the final answer in a text, and determines its form.

The text comes from a model and is not trusted: only its last `MAX_CHARACTERS` are read, every search takes linear time, and nothing is
evaluated.
"""

import ast
import json
import re
import warnings
from collections import Counter
from itertools import takewhile
from typing import Any

from etude.tasks.numbers import find_numbers
from etude.tasks.task import canonical_words

MAX_CHARACTERS = 20_000
"""Number of characters that are read, from the end of the text, where the answer is."""

_MARKER = re.compile(r"####|<answer>|\banswer(?: ?:| {1,3}is\b ?:?)", re.IGNORECASE)
_CLOSING = re.compile(r"</answer>", re.IGNORECASE)
_WORD = re.compile(r"[\w'\u2019-]+")
_SURROUNDINGS = " \t\r\n,;:!?\"'`*_"


def last_characters(text: str) -> str:
    """Return the last `MAX_CHARACTERS` of a text, without surrounding space."""
    return text[-MAX_CHARACTERS:].strip()


def marked_answer(text: str) -> str | None:
    """Return the text after the last answer marker that is followed by any text, or None without one.

    Markers are `#### X`, `<answer>X</answer>`, `answer: X` and `answer is X` (the answer is, the final answer is), in any case. Text after
    a closing `</answer>` does not belong to the answer.

    >>> marked_answer("3 + 4 = 7. The answer is 7."), marked_answer("<answer>7</answer> Done.")
    ('7.', '7')
    """
    markers = list(_MARKER.finditer(text))
    for marker in reversed(markers):
        answer = _CLOSING.split(text[marker.end() :], maxsplit=1)[0].lstrip(" \t\r\n*`")
        if answer:
            return answer
        text = text[: marker.start()]
    return None


def final_answer(text: str, gold: str | None = None) -> str:
    """Return the part of a text to compare with the gold answer: the text after the last answer marker, or else the whole text.

    After a marker, only the first line counts unless the gold answer has several lines. A full stop or emphasis that the gold answer does
    not have is dropped.

    >>> final_answer("So we add. The answer is **12**.", "12")
    '12'
    """
    text = last_characters(text)
    answer = marked_answer(text)
    if answer is None:
        return text
    if gold is None:
        return answer.strip()
    if "\n" not in gold.strip():
        answer = answer.splitlines()[0]
    extra = "".join(character for character in "*`." if not gold.endswith(character))
    return answer.strip().rstrip(extra).strip()


def normalise(text: str) -> str:
    """Normalise a text: one case, single spaces, no surrounding punctuation; a leading sign, dot or bracket stays.

    >>> normalise('  "New   York." ')
    'new york'
    """
    words = " ".join(text.casefold().split())
    return words.lstrip(_SURROUNDINGS).rstrip(_SURROUNDINGS + ".") or words


def word_counts(text: str) -> Counter[str]:
    """Count the words of a text, without articles, punctuation and case.

    >>> sorted(word_counts("The atria, and the left atrium.").items())
    [('and', 1), ('atria', 1), ('atrium', 1), ('left', 1)]
    """
    return Counter(word for word in canonical_words(last_characters(text)) if word[0].isalnum() and word not in ("a", "an", "the"))


def stated_answer(text: str) -> str:
    """Return the final answer without a gold answer that shows the expected form.

    After the last answer marker, this is the first line, or all lines of a grid (each line has the same number of words, more than one),
    without a closing full stop or emphasis. Without a marker it is the whole text.

    >>> stated_answer("The answer is [1, 2].\\nSo it is sorted."), stated_answer("The answer is\\n1 2\\n3 4\\n\\nDone.")
    ('[1, 2]', '1 2\\n3 4')
    """
    answer = marked_answer(last_characters(text))
    if answer is None:
        return last_characters(text)
    first, *others = answer.splitlines()
    width = len(first.split())
    grid = takewhile(lambda line: 1 < width == len(line.split()), others)
    return "\n".join([first, *grid]).strip().rstrip("*`.").strip()


def comparable_answer(text: str) -> str:
    """Return the final answer in a form that can be compared with other answers, without a gold answer.

    Case, spaces and surrounding punctuation are removed.

    >>> comparable_answer("So the answer is  **New York**.") == comparable_answer("new york")
    True
    """
    return normalise(stated_answer(text))


def parse_list(text: str) -> list[Any] | None:
    """Parse a JSON or Python list written as text, without evaluating it; None if it is not a list.

    >>> parse_list("['1', '2']")
    ['1', '2']
    """
    value = _parse(text) if text.startswith("[") and text.endswith("]") else None
    return value if isinstance(value, list) else None


def answer_form(text: str) -> str:
    """Return the form of an answer: `nothing`, `number`, `list`, `object` (a JSON or Python dictionary), `word` or `text`.

    >>> [answer_form(text) for text in ("-1,000.5", "['a', 'b']", "Paris", "New York", "")]
    ['number', 'list', 'word', 'text', 'nothing']
    """
    text = last_characters(text)
    if not text:
        return "nothing"
    numbers = find_numbers(text) if len(text) <= 400 else []
    if len(numbers) == 1 and (numbers[0].start, numbers[0].end) == (0, len(text)):
        return "number"
    if parse_list(text) is not None:
        return "list"
    if text.startswith("{") and text.endswith("}") and isinstance(_parse(text), dict):
        return "object"
    return "word" if _WORD.fullmatch(text.rstrip(".,;:!?")) else "text"


def has_form_of(answer: str, gold: str) -> bool:
    """Tell whether an answer has the same form as the gold answer; a single word also counts as a text.

    >>> has_form_of("[1, 2", "[1, 2]"), has_form_of("left", "left, then right")
    (False, True)
    """
    form, expected = answer_form(answer), answer_form(gold)
    return form == expected or (form, expected) == ("word", "text")


def _parse(text: str) -> Any:
    """Parse a JSON or Python literal; None if it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
