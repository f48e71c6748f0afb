"""What feedback says of an attempt: a reward, and whether the attempt is right.

A score is any finite number: it may be negative, above 1, or a share. None means that the attempt could not be scored (the verifier
crashed, timed out, gave NaN or does not apply); it is never the same as 0. An attempt is right where its score reaches the threshold of
whoever scored it, `right_at`, which is 1 unless the verifier says otherwise (`etude.tasks.functions.right_at_of`) or `tasks.right_at` does.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

RIGHT_AT = 1.0
"""The threshold of a verifier that names none."""


def is_right(score: float | None, right_at: float = RIGHT_AT) -> bool:
    """Whether a score reaches a threshold; no score does not.

    >>> is_right(1.0), is_right(0.9), is_right(None), is_right(17.0, right_at=15.0)
    (True, False, False, True)
    """
    return score is not None and score >= right_at


@dataclass(frozen=True)
class Verdict:
    """A score with its parts."""

    score: float | None
    """Any finite number, or None where the attempt could not be scored."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components; `parsable` is 1.0 where an answer of the expected form was found."""
    step_values: tuple[float, ...] = ()
    """What was expected of the attempt at the boundaries of its steps, where feedback values them: before the first, and behind each."""
    message: str = ""
    """What went wrong, for people: it may name the gold answer."""
    words: str = ""
    """What the model may be told of it: what was read in its answer, never what is right (`etude.rewards.words`); "" leaves it at that."""
    turn_scores: tuple[float | None, ...] = ()
    """Of an attempt that was revised, the scores of its turns, the last one its own; empty for one of a single turn, but where credit is
    to go by another number than its score, which may be any (`etude.learn.length`)."""
    right_at: float = RIGHT_AT
    """The score from which on the attempt, or a turn of it, is right."""
    step_baselines: tuple[float, ...] = ()
    """What was to be expected before each of its steps by other attempts (`etude.rollouts.baselines`); empty: its own values say it."""

    def __post_init__(self) -> None:
        if self.score is not None and not isfinite(self.score):
            raise ValueError(f"score must be a finite number or None, got {self.score}")
        if not isfinite(self.right_at):
            raise ValueError(f"right_at must be a finite number, got {self.right_at}")

    @property
    def is_right(self) -> bool:
        """Whether the attempt is right as it ended."""
        return is_right(self.score, self.right_at)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def scores_of(verdict: Verdict) -> tuple[float | None, ...]:
    """The scores of an attempt's turns.

    >>> scores_of(Verdict(1.0)), scores_of(Verdict(1.0, turn_scores=(0.0, 1.0)))
    ((1.0,), (0.0, 1.0))
    """
    return verdict.turn_scores or (verdict.score,)


def turns_right(verdict: Verdict) -> tuple[bool, ...]:
    """Whether each turn of an attempt is right.

    >>> turns_right(Verdict(20.0, turn_scores=(3.0, 20.0), right_at=15.0))
    (False, True)
    """
    return tuple(is_right(score, verdict.right_at) for score in scores_of(verdict))
