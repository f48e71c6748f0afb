"""What feedback says of an attempt.

A score of None means that the attempt could not be scored (the verifier crashed, timed out or does not apply); it is never the same as 0.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """A score with its parts."""

    score: float | None
    """In [0, 1], or None where the attempt could not be scored."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components; `parsable` is 1.0 where an answer of the expected form was found."""
    step_values: tuple[float, ...] = ()
    """What was expected of the attempt at the boundaries of its steps, where feedback values them: before the first, and behind each."""
    step_baselines: tuple[float, ...] = ()
    """What was to be expected before each of its steps by other attempts (`etude.explore.baselines`); empty: its own values say it."""
    message: str = ""
    """What went wrong, for people: it may name the gold answer."""
    words: str = ""
    """What the model may be told of it: what was read in its answer, never what is right (`etude.feedback.words`); "" leaves it at that."""
    turn_scores: tuple[float | None, ...] = ()
    """Of an attempt that was revised, the scores of its turns, the last one its own; empty for one of a single turn, but where credit is
    to go by another number than its score, which may be any (`etude.learn.length`)."""

    def __post_init__(self) -> None:
        if self.score is not None and not 0.0 <= self.score <= 1.0:
            raise ValueError(f"score must be in [0, 1] or None, got {self.score}")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def scores_of(verdict: Verdict) -> tuple[float | None, ...]:
    """The scores of an attempt's turns.

    >>> scores_of(Verdict(1.0)), scores_of(Verdict(1.0, turn_scores=(0.0, 1.0)))
    ((1.0,), (0.0, 1.0))
    """
    return verdict.turn_scores or (verdict.score,)
