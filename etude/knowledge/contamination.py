"""Contamination check: finds documents that contain an evaluation question.

A document leaks a question if at least `share` of the question's word 5-grams occur in it. The n-grams are short because questions are: a
copy with every tenth word changed keeps about half of them, but none of the 13-grams that are usual for pages (Brown et al. 2020,
appendix C). A blank (`____`) splits a question, since a text that fills the blank is not a copy of it. For a question without any 5-gram, a
leak can't be distinguished from chance; `unchecked` names it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from etude.tasks.overlap import NGram, ngrams
from etude.tasks.task import canonical_words

_WORDS = 5


class Leak(NamedTuple):
    """A leaked question, by its name, and the share of its n-grams that occur in the document."""

    question: str
    share: float


class ContaminationCheck:
    """An index of the questions that training text must not contain."""

    def __init__(self, questions: Mapping[str, str], share: float = 0.5) -> None:
        """Index the n-grams of questions; `questions` maps names to texts."""
        self.share = share
        self.unchecked: list[str] = []
        self._sizes: dict[str, int] = {}
        self._questions_of: defaultdict[NGram, list[str]] = defaultdict(list)
        for name, text in questions.items():
            question_ngrams = _of_question(text)
            for ngram in question_ngrams:
                self._questions_of[ngram].append(name)
            if question_ngrams:
                self._sizes[name] = len(question_ngrams)
            else:
                self.unchecked.append(name)

    def find_worst(self, words: Sequence[str]) -> Leak | None:
        """Return the question with the largest share of its n-grams in a document's canonical words, or None if none is leaked."""
        found = Counter(name for ngram in self._questions_of.keys() & ngrams(words, _WORDS) for name in self._questions_of[ngram])
        leaks = [Leak(name, count / self._sizes[name]) for name, count in found.items()]
        return max((leak for leak in leaks if leak.share >= self.share), key=lambda leak: (leak.share, leak.question), default=None)


def _of_question(text: str) -> set[NGram]:
    """Collect the n-grams of the parts between a question's blanks."""
    parts: list[list[str]] = [[]]
    for word in canonical_words(text):
        if set(word) == {"_"}:
            parts.append([])
        else:
            parts[-1].append(word)
    return {ngram for part in parts if len(part) >= _WORDS for ngram in ngrams(part, _WORDS)}
