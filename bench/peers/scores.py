"""A score that costs nothing and always tells attempts apart: what a step is timed with, the same for every peer."""

from collections.abc import Sequence


def score(tokens: Sequence[int]) -> float:
    """Between 0 and 1, from the tokens alone."""
    return sum((place + 1) * token for place, token in enumerate(tokens)) % 997 / 996
