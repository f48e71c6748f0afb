"""Parse the replies of the verifiers' process as untrusted text.

A reply is a line of JSON, {"id", "rewards"} or {"id", "error"}, to the item that was asked about, whose texts it scores. Any other line, or
a too long one, ends the process that wrote it; a malformed reward costs its own score. Every value's type is checked before it is used.
"""

import json
import math
from typing import Any

from etude.tasks.feedback import shortened
from etude.tasks.reward import Reward

LONGEST_LINE_BYTES = 1 << 18
LONGEST_MESSAGE = 4_096
"""Longest message, and longest words, of a reward, in characters."""
_MOST_NUMBERS = 4_096
_LONGEST_NAME = 200


class BadReply(Exception):
    """The line is no reply to the request."""


def read_line(line: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises BadReply for anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadReply("it wrote what is no reply") from error
    if not isinstance(found, dict):
        raise BadReply("it wrote what is no reply")
    return found


def read_reply(line: bytes, asked: int, n: int = 1) -> tuple[list[Reward], int]:
    """Return the rewards of the `n` texts of the item number `asked`, and for how many the verifier failed.

    Raises BadReply if the line is no reply to it.
    """
    reply = read_line(line)
    number = reply.get("id")
    if isinstance(number, bool) or not isinstance(number, int) or number != asked:
        raise BadReply("it answered what was not asked")
    if isinstance(error := reply.get("error"), str):
        return [Reward(None, message=shortened(f"the verifier raised {error}", LONGEST_MESSAGE))] * n, n
    given = reply.get("rewards")
    found = [_read(each) for each in (given if isinstance(given, list) and len(given) == n else [None] * n)]
    return [reward for reward, _ in found], sum(failed for _, failed in found)


def _read(found: Any) -> tuple[Reward, bool]:
    """Return a reward, and whether it can't be read."""
    try:
        return _reward(found), False
    except ValueError as problem:
        return Reward(None, message=shortened(f"the verifier's reward can't be read: {problem}", LONGEST_MESSAGE)), True


def _reward(found: Any) -> Reward:
    """Build a reward from JSON. Raises ValueError if it is malformed."""
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    score, parts, values = found.get("score", "none"), found.get("parts"), found.get("step_values")
    message, words = found.get("message"), found.get("words")
    if score is not None and not _is_finite(score):
        raise ValueError("its score is no finite number")
    if not isinstance(parts, dict) or not all(len(name) <= _LONGEST_NAME and _is_finite(number) for name, number in parts.items()):
        raise ValueError("its parts are no finite numbers by their names")
    if not isinstance(values, list) or not all(map(_is_finite, values)):
        raise ValueError("its step_values are no finite numbers")
    if len(parts) + len(values) > _MOST_NUMBERS:
        raise ValueError(f"it has more than {_MOST_NUMBERS} numbers")
    if not isinstance(message, str) or not isinstance(words, str):
        raise ValueError("its message and words are no texts")
    right_at: Any = found.get("right_at")
    if not _is_finite(right_at):
        raise ValueError("its right_at is no finite number")
    message, words = (shortened(text, LONGEST_MESSAGE) for text in (message, words))
    return Reward(score, parts, tuple(values), message=message, words=words, right_at=right_at)


def _is_finite(number: Any) -> bool:
    """Return whether a value is a finite number that a float can hold."""
    try:
        return isinstance(number, (int, float)) and math.isfinite(number)
    except OverflowError:
        return False
