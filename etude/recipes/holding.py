"""The last model that somebody found good, and the way back to it: for whatever watches over practice, a gate or an alarm.

    holding.hold(step)            # a step checkpoint that stays, whatever keep_checkpoints says
    step = holding.fall_back()    # policy, optimizer and what learns beside it are again what they were then

The steps are counted on, so that random numbers behind a fall are others than those that led to it. What was held is a whole checkpoint,
with the state of whoever decides, which takes `holding.state()` in, so that a run that is killed goes on from it as from any other. Several
may share one holding: who finds a model good holds it, who sees it spoilt falls back.
"""

from collections.abc import Callable, Mapping

import torch


class Holding:
    """Which step is held."""

    def __init__(self, write: Callable[[int], None], read: Callable[[int], None]) -> None:
        """`write` makes a checkpoint of the model as it is after a step, `read` takes one back."""
        self._write, self._read = write, read
        self.step: int | None = None
        """The step that is held; None before the first."""

    def hold(self, step: int) -> None:
        """Hold the model as it is now, after `step`, instead of what was held."""
        self.step = step  # first, since the checkpoint tells it
        self._write(step)

    def fall_back(self) -> int:
        """Make the model what it was when it was held; returns the step."""
        if self.step is None:
            raise ValueError("nothing is held yet: hold the model that practice begins with")
        self._read(self.step)
        return self.step

    def state(self) -> dict[str, torch.Tensor]:
        """For the state of whoever decides."""
        return {} if self.step is None else {"held": torch.tensor(self.step)}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.step = int(tensors["held"]) if "held" in tensors else None
