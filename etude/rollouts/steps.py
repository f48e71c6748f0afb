"""Where a step of an answer ends: at a line, a sentence or a tag, and always after a maximum number of tokens.

The end of a step depends only on its own text, so a model that pauses there and continues samples from the same distribution as one without
pauses. A sentence therefore ends with its full stop, not with the space after it; a full stop after a digit ends none (3.5, 1.).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from etude.errors import UserError, at_least

_ENDS = {"line": r"\S\s*\n", "sentence": r"(?<![\d\s])[.!?][\"')\]]*\s*$|\S\s*\n"}
_TAG = re.compile(r"[A-Za-z][\w-]*")


@dataclass(frozen=True)
class Steps:
    """How answers are cut into steps."""

    end: Literal["line", "sentence", "tag", "tokens"] = "line"
    """What ends a step; `tokens` = only its length."""
    max_tokens: int = 32
    """Longest step in tokens; it ends there in any case."""
    tags: list[str] = field(default_factory=list)
    """`tag`: names of the tags whose closing ends a step, such as `plan` for </plan>."""

    def __post_init__(self) -> None:
        at_least("steps.max_tokens", self.max_tokens, 1)
        if self.end == "tag" and not self.tags:
            raise UserError("steps.end is tag, but steps.tags names none: set it to the names of your tags, such as plan solve check")
        for tag in self.tags:
            if not _TAG.fullmatch(tag):
                raise UserError(f"steps.tags has {tag!r}: a tag's name is a letter, then letters, digits, _ and -, without < and >")

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """The pattern in a step's text that ends it; None if only tokens count."""
        if self.end == "tokens":
            return None
        return re.compile(f"</(?:{'|'.join(map(re.escape, self.tags))})>" if self.end == "tag" else _ENDS[self.end])

    def lengths(self, tokens: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
        """Return the lengths in tokens of an answer's steps; the last step may be unfinished.

        >>> Steps("tokens", max_tokens=2).lengths([5, 6, 7], str)
        [2, 1]
        """
        found, start, pattern = [], 0, self.pattern
        for end in range(1, len(tokens) + 1):
            is_over = end - start == self.max_tokens or (pattern is not None and pattern.search(decode(tokens[start:end])))
            if is_over or end == len(tokens):
                found.append(end - start)
                start = end
        return found
