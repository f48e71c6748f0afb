"""Quality filter: named heuristic rules that a document must pass; the first failing rule is reported.

After Gopher's rules (Rae et al. 2021, arXiv 2112.11446, appendix A.1), which most web corpora use: too few or too many words, words too
short or too long on average, too many symbols, too few words with a letter, too few stop words, lines that are nearly all bullets or
truncated; and repetition: duplicate lines, and a word pair that makes up much of the text. Departures: the minimum number of words is 20
instead of 50, since pieces are short here; the replacement character, which stands for undecodable bytes, may be at most one character in a
thousand.

`min_explaining` selects text that teaches, by its wording: phrases that define, or give a reason or an example. It is a cheap substitute
for a model's score of educational value (FineWeb-Edu, Penedo et al. 2024).

Identity: with empty `rules` every document with text passes.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from etude.errors import UserError, at_least, check_known

NO_TEXT = "no text"
_STOP = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_BULLETS = ("*", "-", "\u2022", "\u2023", "\u25e6")
_SENTENCE = re.compile(r"[.!?](?=\s|$)")
_EXPLAINS = re.compile(
    r"\b(?:is|are) (?:called|known as|defined as|the (?:process|study|ability|amount|part|result))\b"
    r"|\b(?:refers? to|means that|consists? of|composed of|for example|such as|for instance|because|therefore|thus|as a result|due to"
    r"|in order to|this is why|causes?|results? in)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Quality:
    """Settings of the quality filter."""

    rules: list[str] = field(default_factory=lambda: list(RULES))
    """Names of rules; empty = no filter."""
    min_words: int = 20
    """Least number of words of a document."""
    min_explaining: float = 0.0
    """Least number of explaining phrases per sentence, on average; 0 = off."""

    def check(self, name: str) -> None:
        """Raise UserError for an unknown rule and for numbers out of range."""
        for rule in self.rules:
            check_known(f"rule of {name}.rules", rule, RULES)
        at_least(f"{name}.min_words", self.min_words, 1)
        if self.min_explaining < 0:
            raise UserError(f"{name}.min_explaining must be 0 (off) or more, got {self.min_explaining}")


def find_broken_rule(text: str, quality: Quality) -> str | None:
    """Return the name of the first rule that a text breaks, or None.

    >>> find_broken_rule("Buy now! " * 40, Quality())
    'stop words'
    """
    words = text.split()
    if not words:
        return NO_TEXT
    return next((name for name in quality.rules if not RULES[name](text, words, quality)), None)


def explaining_rate(text: str) -> float:
    """Return the number of explaining phrases per sentence.

    >>> explaining_rate("A cell is called a neuron. It fires because of sodium. It is small.") == 2 / 3
    True
    """
    return len(_EXPLAINS.findall(text)) / max(1, len(_SENTENCE.findall(text)))


Rule = Callable[[str, list[str], Quality], bool]
"""(text, its words, settings) → whether it passes."""


def _has_length(text: str, words: list[str], quality: Quality) -> bool:
    return quality.min_words <= len(words) <= 100_000


def _has_words_of_usual_length(text: str, words: list[str], quality: Quality) -> bool:
    return 3 <= sum(map(len, words)) / len(words) <= 10


def _has_few_symbols(text: str, words: list[str], quality: Quality) -> bool:
    hashes, ellipses = text.count("#"), text.count("...") + text.count("\u2026")
    return max(hashes, ellipses) <= 0.1 * len(words)  # each counted separately, as by Gopher


def _has_letters(text: str, words: list[str], quality: Quality) -> bool:
    return sum(any(map(str.isalpha, word)) for word in words) >= 0.8 * len(words)


def _has_stop_words(text: str, words: list[str], quality: Quality) -> bool:
    return len(_STOP.intersection(map(str.lower, words))) >= 2


def _is_no_list(text: str, words: list[str], quality: Quality) -> bool:
    lines = _lines(text)
    return sum(line.startswith(_BULLETS) for line in lines) <= 0.9 * len(lines)


def _is_not_cut_off(text: str, words: list[str], quality: Quality) -> bool:
    lines = _lines(text)
    return sum(line.endswith(("...", "\u2026")) for line in lines) <= 0.3 * len(lines)


def _has_different_lines(text: str, words: list[str], quality: Quality) -> bool:
    lines = _lines(text)
    return len(lines) - len(set(lines)) <= 0.3 * len(lines)


def _has_different_pairs(text: str, words: list[str], quality: Quality) -> bool:
    pairs = Counter(pairwise(words)).most_common(1)
    return all(count == 1 or count * sum(map(len, pair)) <= 0.2 * sum(map(len, words)) for pair, count in pairs)


def _is_decoded(text: str, words: list[str], quality: Quality) -> bool:
    return text.count("\ufffd") <= 0.001 * len(text)


def _explains(text: str, words: list[str], quality: Quality) -> bool:
    return explaining_rate(text) >= quality.min_explaining


def _lines(text: str) -> list[str]:
    return [stripped for line in text.splitlines() if (stripped := line.strip())]


RULES: dict[str, Rule] = {
    "length": _has_length,
    "word length": _has_words_of_usual_length,
    "symbols": _has_few_symbols,
    "letters": _has_letters,
    "stop words": _has_stop_words,
    "list": _is_no_list,
    "cut off": _is_not_cut_off,
    "repeated lines": _has_different_lines,
    "repeated pairs": _has_different_pairs,
    "decoding": _is_decoded,
    "explaining": _explains,
}
