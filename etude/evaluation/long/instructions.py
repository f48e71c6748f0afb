"""Instructions before a long text: which of them does the model still follow after it (after Chen et al. 2025, arXiv 2510.00231)?"""

from random import Random

from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.task import LongTask, join_with_and

_WORDS = ("acorn", "beacon", "cobalt", "dagger", "ember", "fiddle", "glacier", "harbour", "ivory", "jasmine", "kernel", "lagoon", "marble")
_ASKED = 3


def instructions(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
    """Make a task with words that the answer must contain, one rule sentence each at the beginning of the text."""
    words = draw.sample(_WORDS, _ASKED)
    rules = " ".join(f"Rule {number}: your answer must have the word {word}." for number, word in enumerate(words, 1))
    room = tokens - haystack.count(rules)
    text, _ = haystack.around(draw, [], room)
    numbers = join_with_and([str(number) for number in range(1, _ASKED + 1)])
    question = f"Which words must your answer have, by rules {numbers}?"
    return LongTask("instructions", f"{rules}\n\n{text}", question, "My answer must have the words", tuple(words), depth=0.0)
