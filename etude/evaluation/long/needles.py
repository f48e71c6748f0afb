"""Needle in a haystack: a number under a name, hidden in the text (RULER, Hsieh et al. 2024, arXiv 2404.06654, its "niah" tasks).

single        one needle
multi_key     one needle, hidden among needles with other names
multi_value   several numbers under one name
"""

from functools import partial
from random import Random

from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.task import LongTask

_COLOURS = "amber black blue brown copper gold green grey olive orange pink purple red silver white"
_THINGS = (
    "anchor basket bridge candle castle drum eagle engine falcon garden hammer island kettle ladder lantern mirror needle orchard pencil "
    "river saddle statue temple tower violin window"
)


def _needle(kind: str, keys: int, values: int, draw: Random, haystack: Haystack, tokens: int) -> LongTask:
    names = draw.sample([f"{colour} {thing}" for colour in _COLOURS.split() for thing in _THINGS.split()], keys)
    numbers = [[str(number) for number in draw.sample(range(10_000, 100_000), values if name == names[0] else 1)] for name in names]
    asked = names[0]
    said = [
        f"One of the special magic numbers for the {name} is: {number}." for name, own in zip(names, numbers, strict=True) for number in own
    ]
    draw.shuffle(said)
    context, depths = haystack.around(draw, said, tokens)
    first = next(depth for depth, text in zip(depths, said, strict=True) if f"for the {asked} is" in text)
    many = f"What are all the special magic numbers for the {asked} mentioned in the text?"
    one = f"What is the special magic number for the {asked} mentioned in the text?"
    begin = f"The special magic number{'s' if values > 1 else ''} for the {asked} mentioned in the text {'are' if values > 1 else 'is'}"
    return LongTask(kind, context, many if values > 1 else one, begin, tuple(numbers[0]), depth=first)


single = partial(_needle, "single", 1, 1)
multi_key = partial(_needle, "multi_key", 4, 1)
multi_value = partial(_needle, "multi_value", 1, 2)
