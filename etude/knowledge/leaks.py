"""Leaks: documents that hold a question which a model is going to be asked.

A document leaks a question where at least `share` of the question's pieces of five words stand in it. Pieces are short, since questions
are: a copy in which every tenth word is another one keeps about half of them, where the pieces of 13 words that are usual for pages
(Brown et al. 2020, appendix C) would all be gone. A blank (`____`) parts a question: what a text says in its place is no copy of it.
Questions without a piece of five words cannot be told from chance, and are named by `unchecked`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from etude.tasks.overlap import Piece, pieces
from etude.tasks.task import canonical_words

_WORDS = 5


class Leak(NamedTuple):
    """Which question, by its name, and what share of its pieces stands in the document."""

    question: str
    share: float


class Leaks:
    """What must not be in training text."""

    def __init__(self, questions: Mapping[str, str], share: float = 0.5) -> None:
        """`questions`: names to texts."""
        self.share = share
        self.unchecked: list[str] = []
        self._sizes: dict[str, int] = {}
        self._asking: defaultdict[Piece, list[str]] = defaultdict(list)
        for name, text in questions.items():
            own = _of_question(text)
            for piece in own:
                self._asking[piece].append(name)
            if own:
                self._sizes[name] = len(own)
            else:
                self.unchecked.append(name)

    def worst(self, words: Sequence[str]) -> Leak | None:
        """The question that a document with these canonical words leaks most of, if it leaks one."""
        found = Counter(name for piece in self._asking.keys() & pieces(words, _WORDS) for name in self._asking[piece])
        leaks = [Leak(name, count / self._sizes[name]) for name, count in found.items()]
        return max((leak for leak in leaks if leak.share >= self.share), key=lambda leak: (leak.share, leak.question), default=None)


def _of_question(text: str) -> set[Piece]:
    """The pieces of what stands between a question's blanks."""
    parts: list[list[str]] = [[]]
    for word in canonical_words(text):
        if set(word) == {"_"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return {piece for part in parts if len(part) >= _WORDS for piece in pieces(part, _WORDS)}
