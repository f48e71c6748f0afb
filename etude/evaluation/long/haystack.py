"""Text to hide something in: sentences of books, or of nothing in particular."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

from etude.errors import UserError

Count = Callable[[str], int]
"""A text's tokens."""

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
"""What RULER (Hsieh et al. 2024, arXiv 2404.06654) fills a text with that is to say nothing."""


_BEGINNINGS = 100
"""How many are drawn before a text is said to have no room."""


class Haystack:
    """Sentences in order, and how many tokens each takes."""

    def __init__(self, text: str, count: Count) -> None:
        """Raises UserError for a text without a sentence."""
        self.sentences = sentences_of(text)
        if not self.sentences:
            raise UserError("the text to hide things in has no sentence: name files with text")
        self.count = count
        self._tokens = [count(f" {sentence}") for sentence in self.sentences]
        self._ends = list(accumulate(self._tokens))

    def around(self, draw: Random, hidden: Sequence[str], tokens: int) -> tuple[str, list[float]]:
        """Sentences from a random one on, from the beginning again behind the last one, with what is hidden between them, in order and at
        random places: about `tokens` tokens and no more; and the depth of each, from 0 to 1. Where the next sentence is so long that less
        than half of the room would be filled, another beginning is drawn. Raises UserError where it does not fit.
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
        """As many sentences from this one on as have room, by their places."""
        count, before = len(self.sentences), self._ends[first] - self._tokens[first]
        whole, rest = divmod(tokens, self._ends[-1])
        chosen = [*range(first, count), *range(first)] * whole
        end = bisect_right(self._ends, before + rest)
        if end < count or before + rest == self._ends[-1]:
            return [*chosen, *range(first, end)]
        return [*chosen, *range(first, count), *range(bisect_right(self._ends, rest - (self._ends[-1] - before)))]


def sentences_of(text: str) -> list[str]:
    """Without markup, each on one line.

    >>> sentences_of("# One\\n\\nHe said: \\"Go.\\" She\\nwent. ")
    ['One', 'He said: "Go."', 'She went.']
    """
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        flat = " ".join(re.sub(r"^#+\s*|[*_]", "", line) for line in paragraph.split("\n"))
        found += re.split(r"(?<=[.!?])\s+|(?<=[.!?][\"”\u2019'])\s+", flat)
    return [sentence.strip() for sentence in found if sentence.strip()]
