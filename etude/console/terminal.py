"""Escapes control characters of untrusted texts for a terminal: names of files, replies of servers and texts of models."""

import logging
import re

_STEERING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Control characters except line breaks and tabs, characters that change the writing direction, and lone surrogates."""


def visible(text: str) -> str:
    r"""Escape the characters that would control a terminal.

    >>> print(visible("a name\x1b]0;OWNED\x07, in 日本 too"))
    a name\x1b]0;OWNED\x07, in 日本 too
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class VisibleFormatter(logging.Formatter):
    """A log formatter that escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
