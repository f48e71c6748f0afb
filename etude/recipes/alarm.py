"""The alarm of collapse in a run that falls back: what shows no sign of one is held, and practice ends with that.

What it says of a step follows from the log alone, so that all it has to carry over a kill is what is held.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from etude.recipes.holding import Holding
from etude.rollouts.collapse import CollapseWatch, is_sound

if TYPE_CHECKING:
    from etude.recipes.practice import Practice


class Alarm:
    """Holds the model every `window` steps while it is sound, and brings it back where it has collapsed."""

    def __init__(self, watch: CollapseWatch, holding: Holding, rows: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        """`rows` are the metrics of the steps that are done, which `watch` looks at."""
        self.watch, self.holding, self.rows = watch, holding, rows

    def act(self, step: int) -> None:
        """Hold the model behind `step`, or fall back; behind the log, which a checkpoint has to follow."""
        rows = self.rows()
        if (collapse := self.watch.first(rows)) and collapse.step == step:
            self.holding.fall_back()
        elif step % self.watch.how.window == 0 and is_sound(rows, self.watch.how):
            self.holding.hold(step)

    def state(self) -> dict[str, torch.Tensor]:
        return self.holding.state()

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.holding.load(tensors)


def alarm_for(run: "Practice") -> Alarm | None:
    """Of a run that is to fall back, else None."""
    is_to_fall_back = run.settings.collapse.action == "fall_back"
    return Alarm(run.collapse, run.holding, run.steps_so_far) if is_to_fall_back and run.holding else None
