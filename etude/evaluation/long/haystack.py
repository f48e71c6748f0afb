"""Haystacks: filler text to hide something in, sentences of books or noise."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from etude.errors import UserError

Count = Callable[[str], int]
"""Text -> number of tokens."""

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""The filler text of RULER (Hsieh et al. 2024, arXiv 2404.06654)."""


_BEGINNINGS = 100
"""Number of start positions to try before an error."""


class Haystack:
    """The sentences of a text in order, with the tokens of each."""

    def __init__(self, text: str, count: Count) -> None:
        """Split the text. Raises UserError for a text without a sentence."""
        self.sentences = sentences_of(text)
        if not self.sentences:
            raise UserError("the text to hide things in has no sentence: name files with text")
        self.count = count
        self._tokens = [count(f" {sentence}") for sentence in self.sentences]
        self._ends = list(accumulate(self._tokens))

    def around(self, draw: Random, hidden: Sequence[str], tokens: int) -> tuple[str, list[float]]:
        """Hide texts at random places between about `tokens` tokens of sentences; returns the text and each depth from 0 to 1.

        The sentences start at a random one and wrap around at the end of the haystack. If less than half of the room would be filled before
        a long sentence, another start is sampled. The hidden texts keep their order. Raises UserError if they do not fit.
        """
        own = [self.count(f" {each}") for each in hidden]
        free = tokens - sum(own)
        for _ in range(_BEGINNINGS):
            chosen = self._from(draw.randrange(len(self.sentences)), free) if free > 0 else []
            if 2 * sum(self._tokens[place] for place in chosen) >= free > 0:
                break
        else:
            raise UserError(f"a text of {tokens} tokens has no room for what is hidden in it ({sum(own)} tokens): set tokens to more")
        sentences = [self.sentences[place] for place in chosen]
        places = sorted(draw.randrange(len(sentences) + 1) for _ in hidden)
        parts, last = [], 0
        for place, each in zip(places, hidden, strict=True):
            parts += [*sentences[last:place], each]
            last = place
        return " ".join([*parts, *sentences[last:]]), [place / len(sentences) for place in places]

    def _from(self, first: int, tokens: int) -> list[int]:
        """Return the indices of the sentences from this one that fit."""
        count, before = len(self.sentences), self._ends[first] - self._tokens[first]
        whole, rest = divmod(tokens, self._ends[-1])
        chosen = [*range(first, count), *range(first)] * whole
        end = bisect_right(self._ends, before + rest)
        if end < count or before + rest == self._ends[-1]:
            return [*chosen, *range(first, end)]
        return [*chosen, *range(first, count), *range(bisect_right(self._ends, rest - (self._ends[-1] - before)))]


def sentences_of(text: str) -> list[str]:
    """Split a text into sentences, without markup, each on one line.

    >>> sentences_of("# One\\n\\nHe said: \\"Go.\\" She\\nwent. ")
    ['One', 'He said: "Go."', 'She went.']
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(re.sub(r"^#+\s*|[*_]", "", line) for line in paragraph.split("\n"))
        found += re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"”\u2019'])\s+", flat)
    return [sentence.strip() for sentence in found if sentence.strip()]
