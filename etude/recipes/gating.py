"""The gate in a run: every so many steps it measures what the model knows and how far it has moved, holds what passes, and has practice
fall back where it fails.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from etude.learn.gate import Gate
from etude.learn.learner import Learner
from etude.learn.replay import Replay
from etude.recipes.holding import Holding

SEEN = {"choice_accuracy": "old_choice_accuracy", "perplexity": "old_perplexity", "forward_kl": "forward_kl"}
"""What a gate goes by, and how it is called in the log."""


class Gating:
    """What stands between two steps of practice."""

    def __init__(
        self, gate: Gate, holding: Holding, learner: Learner, replay: Replay | None, measure: Callable[[], Mapping[str, Any]]
    ) -> None:
        """`measure` gives the numbers of the model as it is now."""
        self.gate, self.holding, self.learner, self.replay, self.measure = gate, holding, learner, replay, measure
        self._has_passed: bool | None = None

    @property
    def is_over(self) -> bool:
        """Whether practice is to end."""
        return self.gate.is_over

    def look(self, step: int, *, is_last: bool) -> dict[str, float]:
        """What it sees behind `step`, and whether that passes, for the log; nothing where it is not its turn. The last step always is."""
        if step % self.gate.settings.every and not is_last:
            return {}
        now = self.measure()
        self._has_passed = self.gate.passes(now)
        held = step if self._has_passed or self.holding.step is None else self.holding.step
        seen = {logged: now[name] for name, logged in SEEN.items() if name in now}
        return {**seen, "gate_passed": int(self._has_passed), "gate_held": held}

    def act(self, step: int) -> None:
        """Hold the model behind `step`, or fall back, by what was seen; behind the log, which a checkpoint has to follow."""
        if self._has_passed:
            self.holding.hold(step)
        elif self._has_passed is not None:
            self.gate.fall()
            self.holding.fall_back()
            self._apply()
        self._has_passed = None

    def _apply(self) -> None:
        self.learner.rate_factor = self.gate.rate_factor
        if self.replay:
            self.replay.factor = self.gate.replay_factor

    def state(self) -> dict[str, torch.Tensor]:
        return self.gate.state() | self.holding.state()

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.gate.load(tensors)
        self.holding.load(tensors)
        self._apply()


def story_of(gate: Gate, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's gate saw and did, from the rows of its log: `before`, every measurement, how often it fell back, and whether it ended
    practice.
    """
    seen = [row for row in rows if "gate_passed" in row]
    measured = [{name: row[logged] for name, logged in SEEN.items() if logged in row} for row in seen]
    return {
        "before": {name: gate.before[name] for name in SEEN if name in gate.before},
        "measurements": [
            {"step": row["step"], **numbers, "passed": bool(row["gate_passed"]), "held": row["gate_held"]}
            for row, numbers in zip(seen, measured, strict=True)
        ],
        "falls": sum(not row["gate_passed"] for row in seen),
        "ended_practice": gate.is_over,
    }
