"""Detect a collapse of a model that learns from its own agreement, and warn, stop or roll back (`etude.rollouts.collapse` has the signs).

Its decisions follow from the log, so it has no state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from etude.rollouts.collapse import Collapse, CollapseSettings, CollapseWatch, is_sound
from etude.training.callback import Callback, Decision, Metrics

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


class CollapseDetector(Callback):
    """Detects a collapse; if it may roll back, it holds the model every `window` steps while the signs are weak."""

    name, Settings, rolls_back = "collapse", CollapseSettings, False

    def __init__(self, settings: CollapseSettings) -> None:
        super().__init__(settings)
        self.watch = CollapseWatch(settings)
        self.found: Collapse | None = None

    @property
    def can_roll_back(self) -> bool:
        return bool(self.settings.action == "rollback")

    def start(self, run: "PracticeRun") -> None:
        self.run = run
        self.found = self.watch.first(run.history)

    def decide(self, step: int, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, is_last: bool) -> tuple[Decision, Metrics]:
        rows = [*history, row]
        self.found = self.watch.first(rows)
        is_new = self.found is not None and self.found.step == step
        if self.found and is_new:
            self.run.reporter.say(self.found.words)
        stop = self.found is not None and self.settings.action != "warn"
        if not self.can_roll_back:
            return Decision(stop=stop), {}
        holds = not is_new and step % self.settings.window == 0 and is_sound(rows, self.settings)
        return Decision(stop=stop, rollback=is_new, hold=True if holds else None), {}

    def finish(self) -> dict[str, Any] | None:
        if self.found is None:
            return None
        return asdict(self.found) | {"words": self.found.words, "action": self.settings.action}
