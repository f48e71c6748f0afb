"""What a model still knows and does of what the start did, item by item: one number for each way to lose something.

number          items                                                          value
still known     questions with choices that the start knows with a margin      share of these that the model answers rightly
above chance    all questions with choices                                     (accuracy - chance) / (the start's accuracy - chance)
kept            greedy answers of the start that were right                    share of these tasks that the model answers rightly
newly right     greedy answers of the start that were wrong                    the same

The margin of a question is by how much the right choice beats the best wrong one, in nats a token:

    margin = log p(right | question) / tokens of it - max over wrong choices of log p(choice | question) / tokens of it

By whole choices the shortest would win, whatever is asked. A margin leaves out questions that turn at a touch; the larger it is, the more
it takes to lose a question. It does not tell knowledge from luck: where a model is near chance, most of the known are lucky. A share of the
start's accuracy counts luck, too: at 35 % where chance is 25 %, a tenth lost is a third of what was known. Identity: the start itself keeps
everything, and nothing is newly right.
"""

from collections.abc import Sequence
from typing import NamedTuple

from etude.evaluation.statistics import ratio_of_sums

Ratio = tuple[float, float, float]
"""A ratio with the ends of its 95 % interval."""


class Answered(NamedTuple):
    """How a model answers a question with choices."""

    margin: float
    """Log-prob of the right choice minus that of the best wrong one, in nats a token."""
    is_right: bool
    """By the log-prob per byte (`etude.evaluation.retention`)."""
    chance: float
    """Accuracy of a guess."""


def still_known(before: Sequence[Answered], after: Sequence[Answered], margin: float) -> list[bool]:
    """Return, for each question that the start knows by at least `margin` nats a token, whether its right choice is still the likeliest.

    >>> start = [Answered(2.0, True, 0.25), Answered(0.5, True, 0.25)]
    >>> still_known(start, [Answered(0.1, True, 0.25), Answered(-1.0, False, 0.25)], margin=1.0)
    [True]
    """
    return [now.margin > 0 for then, now in zip(before, after, strict=True) if then.margin >= margin]


def above_chance(before: Sequence[Answered], after: Sequence[Answered]) -> Ratio | None:
    """Return how much of the start's accuracy above chance is left, with its bootstrap interval over questions.

    None if the start isn't clearly above chance: then there is nothing to lose.
    """
    kept = [now.is_right - now.chance for now in after]
    return ratio_of_sums(kept, [then.is_right - then.chance for then in before])


def kept_and_new(before: Sequence[bool], after: Sequence[bool]) -> tuple[list[bool], list[bool]]:
    """Return whether the model is right, for each task that the start was right at, and for each other one.

    >>> kept_and_new([True, True, False], [True, False, True])
    ([True, False], [True])
    """
    pairs = list(zip(before, after, strict=True))
    return [now for then, now in pairs if then], [now for then, now in pairs if not then]
