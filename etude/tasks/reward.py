"""The reward of an attempt: its score, and whether it is right.

A score is any finite number: it may be negative, above 1, or a share. None means that the attempt could not be scored (the verifier
crashed, timed out, gave NaN or does not apply); this is never the same as 0. An attempt is right if its score reaches the threshold
`right_at`, which is 1 unless the verifier (`etude.tasks.functions.get_right_at`) or `tasks.right_at` sets another.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

RIGHT_AT = 1.0
"""The default threshold."""


def is_right(score: float | None, right_at: float = RIGHT_AT) -> bool:
    """Return whether a score reaches a threshold; a missing score does not.

    >>> is_right(1.0), is_right(0.9), is_right(None), is_right(17.0, right_at=15.0)
    (True, False, False, True)
    """
    return score is not None and score >= right_at


@dataclass(frozen=True)
class Reward:
    """The score of an attempt, with its components."""

    score: float | None
    """Any finite number, or None if the attempt could not be scored."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components; `parsable` is 1.0 if an answer of the expected form was found."""
    step_values: tuple[float, ...] = ()
    """Expected rewards at the boundaries of the attempt's steps, if they are estimated: before the first step, and after each."""
    message: str = ""
    """The problem, for people: it may name the gold answer."""
    words: str = ""
    """The feedback for the model: the answer that was read, never the correct one (`etude.tasks.feedback`); "" for a default sentence."""
    turn_scores: tuple[float | None, ...] = ()
    """The scores of a revised attempt's turns, including its own as the last. Empty for a single turn, unless the advantage uses another
    number than the score (`etude.callbacks.overlong_penalty`)."""
    right_at: float = RIGHT_AT
    """The score from which the attempt, or one of its turns, is right."""
    step_baselines: tuple[float, ...] = ()
    """Expected rewards before each step, estimated from other attempts (`etude.rollouts.baselines`); empty: `step_values` are used."""

    def __post_init__(self) -> None:
        if self.score is not None and not isfinite(self.score):
            raise ValueError(f"score must be a finite number or None, got {self.score}")
        if not isfinite(self.right_at):
            raise ValueError(f"right_at must be a finite number, got {self.right_at}")

    @property
    def is_right(self) -> bool:
        """True if the attempt's final score is right."""
        return is_right(self.score, self.right_at)

    def to_json(self) -> dict[str, Any]:
        """Convert to a dictionary of JSON values."""
        return asdict(self)


def scores_of(reward: Reward) -> tuple[float | None, ...]:
    """Return the scores of an attempt's turns.

    >>> scores_of(Reward(1.0)), scores_of(Reward(1.0, turn_scores=(0.0, 1.0)))
    ((1.0,), (0.0, 1.0))
    """
    return reward.turn_scores or (reward.score,)


def turns_right(reward: Reward) -> tuple[bool, ...]:
    """Return whether each turn of an attempt is right.

    >>> turns_right(Reward(20.0, turn_scores=(3.0, 20.0), right_at=15.0))
    (False, True)
    """
    return tuple(is_right(score, reward.right_at) for score in scores_of(reward))
