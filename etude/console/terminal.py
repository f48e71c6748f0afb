"""Texts from outside on a terminal: names of files, what a server said and what a model wrote must not steer it."""

import logging
import re

_STEERING = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Control characters but line breaks and tabs, those that turn the direction of writing, and halves of characters."""


def visible(text: str) -> str:
    r"""The text with what would steer a terminal written out.

    >>> print(visible("a name\x1b]0;OWNED\x07, in 日本 too"))
    a name\x1b]0;OWNED\x07, in 日本 too
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class VisibleFormatter(logging.Formatter):
    """A format of log lines in which nothing steers a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))
