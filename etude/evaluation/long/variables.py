"""Variable tracking: a number is passed from variable to variable, at several places of the text (RULER's "vt")."""

from itertools import pairwise
from random import Random
from string import ascii_uppercase

from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.task import LongTask

_HOPS = 3


def variables(draw: Random, haystack: Haystack, tokens: int) -> LongTask:
    """Make a task that asks for all variables of the chain."""
    names: list[str] = []
    while len(names) < _HOPS + 1:
        name = "".join(draw.sample(ascii_uppercase, 4))
        names += [] if name in names else [name]
    number = str(draw.randrange(10_000, 100_000))
    said = [f"VAR {names[0]} = {number}.", *(f"VAR {name} = VAR {before}." for before, name in pairwise(names))]
    context, depths = haystack.around(draw, said, tokens)
    question = f"Which variables have the value {number} in the text? Name all of them."
    begin = f"The {len(names)} variables that have the value {number} are:"
    return LongTask("variables", context, question, begin, tuple(names), depth=depths[0])
