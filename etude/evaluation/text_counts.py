"""Counts the words and details of a text, correct or not, to reveal decoding methods that win by saying less.

words    number of words
details  number of distinct numbers, and of distinct capitalised words that do not begin a sentence: possible errors of a short answer
"""

import re
from dataclasses import dataclass

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_TOKEN = re.compile(r"\d[\d.,]*|[^\W\d_][\w'\u2019-]*")


@dataclass(frozen=True)
class TextCounts:
    """The counts of one text."""

    words: int
    details: int


def count_text(text: str) -> TextCounts:
    """Count the words and details of a text.

    >>> count_text("It was built in 1889. The tower stands in Paris, France.")
    TextCounts(words=11, details=3)
    """
    words, details = 0, set()
    for sentence in _SENTENCE.split(text):
        tokens = _TOKEN.findall(sentence)
        words += len(tokens)
        details |= {token.rstrip(".,") for place, token in enumerate(tokens) if token[0].isdigit() or (place and token[0].isupper())}
    return TextCounts(words, len(details))
