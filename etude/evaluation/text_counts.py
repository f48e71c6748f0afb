"""How much a text says, whether it is right or not: so that no way of answering can win by saying less.

words    how many
details  different numbers, and different words that begin with a capital letter elsewhere than at the beginning of a sentence: what can
         be wrong in a short answer
"""

import re
from dataclasses import dataclass

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_TOKEN = re.compile(r"\d[\d.,]*|[^\W\d_][\w'\u2019-]*")


@dataclass(frozen=True)
class TextCounts:
    """A text's counts."""

    words: int
    details: int


def count_text(text: str) -> TextCounts:
    """
    >>> describe("It was built in 1889. The tower stands in Paris, France.")
    Described(words=11, details=3)
    """
    words, details = 0, set()
    for sentence in _SENTENCE.split(text):
        tokens = _TOKEN.findall(sentence)
        words += len(tokens)
        details |= {token.rstrip(".,") for place, token in enumerate(tokens) if token[0].isdigit() or (place and token[0].isupper())}
    return TextCounts(words, len(details))
