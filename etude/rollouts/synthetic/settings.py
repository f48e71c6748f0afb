"""How many problems a model writes for itself in a step, from what, and which of them are good to practise on."""

from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class Window:
    """Shares of right attempts at a problem, from `low` to `high`: neither too hard nor too easy."""

    low: float
    high: float

    def admits(self, right: float, attempts: int) -> bool:
        """Return whether so many of so many attempts lie in the window; no problem does that has none.

        >>> [Window(0.125, 0.5).admits(right, 8) for right in (0, 1, 4, 5)]
        [False, True, True, False]
        """
        return attempts > 0 and self.low - 1e-9 <= right / attempts <= self.high + 1e-9

    def check(self, name: str) -> None:
        """Raise UserError for what is no window; `name` is what the settings call it."""
        if not 0 <= self.low <= self.high <= 1:
            raise UserError(f"{name} must be a low and a high share with 0 <= low <= high <= 1, got {self.low} to {self.high}")


@dataclass(frozen=True)
class SyntheticTasksSettings:
    """Tasks that the policy writes in every step, and solves beside those that it was given."""

    method: Literal["svs", "proposer"]
    """`svs`: from right attempts at tasks that are neither hard nor easy the policy writes variants that keep the answer (SvS); `proposer`:
    it writes problems like those of the step, whose answer is the majority's, and is rewarded where its attempts are at odds."""
    sources: int = 4
    """Attempts (`svs`) or sets of examples (`proposer`) of a step that problems are written from, at most."""
    problems: int = 4
    """Problems written from each: the group."""
    shots: int = 3
    """Examples that are shown before."""
    max_new_tokens: int = 96
    """Longest problem."""
    source_window: Window = Window(0.125, 0.5)
    """`svs`: shares of right attempts at a task from which variants are written."""
    window: Window = Window(0.125, 0.625)
    """`svs`: shares of the attempts at a variant that give the answer, for which its writer is rewarded."""
    min_share: float = 0.25
    """`proposer`: share of the attempts that have to agree on an answer for it to be taken for right."""
    max_overlap: float = 0.7
    """Share of a problem's pieces of 4 words that may stand in one that was shown; a longer overlap is a copy."""

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
