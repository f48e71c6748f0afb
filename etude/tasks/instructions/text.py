"""Counts in a text that rules are about: words, sentences, items, lines."""

import re

WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?]+[\"')\u2019\u201d]*(?=\s|$)")
NUMBERED = re.compile(r"^\s*\d{1,2}[.)]\s+", re.MULTILINE)
_DASHED = re.compile(r"\s*[-*\u2022\u2013\u2014]\s+\S")
_PAIRS = {'"': '"', "\u201c": "\u201d", "[": "]", "(": ")"}


def words(text: str) -> list[str]:
    """Return the words of a text; a number, "don't" and "well-known" are one word each.

    >>> words("I don't know 12 well-known rivers.")
    ['I', "don't", 'know', '12', 'well-known', 'rivers']
    """
    return WORD.findall(text)


def lower_words(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return words(text.lower())


def num_sentences(text: str) -> int:
    """Count sentences; text after the last full stop counts as one more.

    >>> num_sentences("It rained. We went home! Did you"), num_sentences("1. Tea")
    (3, 1)
    """
    text = NUMBERED.sub("", text).strip()
    ends = [end.end() for end in SENTENCE_END.finditer(text)]
    rest = text[ends[-1] :] if ends else text
    return len(ends) + (WORD.search(rest) is not None)


def num_dashed(text: str) -> int:
    """Count the lines that begin with a dash, a bullet or a star."""
    return sum(_DASHED.match(line) is not None for line in text.splitlines())


def lines(text: str) -> list[str]:
    """Return the lines that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


def is_enclosed(text: str, opening: str) -> bool:
    """Return whether a text stands in one pair of marks, with something between them and no such mark inside.

    >>> is_enclosed('"A cup of tea."', '"'), is_enclosed('"Tea" or "cake"', '"')
    (True, False)
    """
    inner = text[1:-1]
    closing = {_PAIRS[opening], '"'} if opening in ('"', "\u201c") else {_PAIRS[opening]}
    return len(text) > 2 and text[0] == opening and text[-1] in closing and opening not in inner and _PAIRS[opening] not in inner
