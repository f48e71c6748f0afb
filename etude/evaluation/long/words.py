"""Frequent words: tasks that need aggregation over the whole text (RULER's "cwe" and "fwe").

common     five words thirty times each, others three times
frequent   made-up words with Zipf frequencies, alpha = 2; asks for the three most frequent
"""

from random import Random

from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.task import LongTask

_COMMON, _TIMES, _OTHERS = 5, 30, 3
_ALPHA, _ASKED = 2.0, 3
_SYLLABLES = ("ba", "co", "di", "fe", "gu", "ha", "ki", "lo", "mu", "na", "po", "ri", "sa", "te", "vo", "zi")


def common(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
    """Make a task that asks for the five common words; the haystack only counts tokens."""
    made = _made(draw)
    wanted = [next(made) for _ in range(_COMMON)]
    said = [word for word in wanted for _ in range(_TIMES)]
    room = tokens - haystack.count(_numbered(said))
    while room > 0:
        more = [next(made)] * _OTHERS
        room -= haystack.count(_numbered(more))
        said += more if room > 0 else []
    draw.shuffle(said)
    question = f"What are the {_COMMON} most common words in the list above?"
    return LongTask("common", _numbered(said), question, f"The {_COMMON} most common words are:", tuple(wanted))


def frequent(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
    """Make a task that asks for the three most frequent words; the haystack only counts tokens."""
    made = _made(draw)
    words = [next(made) for _ in range(200)]
    weights = [1 / rank**_ALPHA for rank in range(1, len(words) + 1)]
    a_word = haystack.count(" ".join(words)) / len(words)
    said = draw.choices(words, weights, k=int(tokens / a_word * 0.95))
    counts = sorted(words, key=lambda word: -said.count(word))
    question = f"What are the {_ASKED} words that come most often in the coded text above?"
    return LongTask("frequent", " ".join(said), question, f"The {_ASKED} words that come most often are:", tuple(counts[:_ASKED]))


def _made(draw: Random):  # type: ignore[no-untyped-def]  # a generator of words
    seen: set[str] = set()
    while True:
        longest = 3 if len(seen) < 2000 else 5  # there are a million such words
        word = "".join(draw.choices(_SYLLABLES, k=draw.randint(2, longest)))
        if word not in seen:
            seen.add(word)
            yield word


def _numbered(words: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, 1))
