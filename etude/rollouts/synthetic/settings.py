"""Settings of synthetic tasks: how many problems a model writes in a step, from what, and which of them are used."""

from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class Window:
    """Range of the share of right attempts at a problem: neither too hard nor too easy."""

    low: float
    """Least share, in [0, high]."""
    high: float
    """Largest share, in [low, 1]."""

    def admits(self, right: float, attempts: int) -> bool:
        """Return whether this share of right attempts lies in the window; a problem without attempts is never admitted.

        >>> [Window(0.125, 0.5).admits(right, 8) for right in (0, 1, 4, 5)]
        [False, True, True, False]
        """
        return attempts > 0 and self.low - 1e-9 <= right / attempts <= self.high + 1e-9

    def check(self, name: str) -> None:
        """Raise UserError for an invalid window; `name` is its name in the settings."""
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"{name} must be a low and a high share with 0 <= low <= high <= 1, got {self.low} to {self.high}")


@dataclass(frozen=True)
class SyntheticTasksSettings:
    """Synthetic tasks that the policy writes in every step, and solves besides the given ones."""

    method: Literal["svs", "proposer"]
    """`svs` = variants with the same answer, written from right attempts at tasks that are neither hard nor easy (SvS); `proposer` =
    problems like the step's, whose answer is the majority's; it is rewarded if attempts at them disagree."""
    sources: int = 4
    """Most attempts (`svs`) or sets of examples (`proposer`) of a step to write problems from."""
    problems: int = 4
    """Problems written from each source: the group, at least 2."""
    shots: int = 3
    """Examples in the prompt; at least 1 for `proposer`."""
    max_new_tokens: int = 96
    """Longest problem in tokens."""
    source_window: Window = Window(0.125, 0.5)
    """`svs`: shares of right attempts at a task from which variants are written."""
    window: Window = Window(0.125, 0.625)
    """`svs`: shares of attempts at a variant that give the answer, for which writing it is rewarded."""
    min_share: float = 0.25
    """`proposer`: share of the attempts that must agree on an answer for it to count as right, in [0, 1]."""
    max_overlap: float = 0.7
    """Share of a problem's word 4-grams that may occur in a shown one, in [0, 1]; a problem above it is a copy."""

    def __post_init__(self) -> None:
        for name, least in (("sources", 1), ("problems", 2), ("shots", 0), ("max_new_tokens", 1)):
            at_least(f"synthetic_tasks.{name}", getattr(self, name), least)
        self.source_window.check("synthetic_tasks.source_window")
        self.window.check("synthetic_tasks.window")
        for name in ("min_share", "max_overlap"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"synthetic_tasks.{name} must be in [0, 1], got {getattr(self, name)}")
        if self.method == "proposer" and not self.shots:
            raise UserError("synthetic_tasks.shots is 0, but a proposer writes problems like those that are shown: set it to 1 or more")
