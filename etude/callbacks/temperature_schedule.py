"""Change the sampling temperature linearly from `rollout.sampling.temperature` to `end`, from the first step to the last.

    T_k = T_1 + (k - 1) / (steps - 1) · (end - T_1)        k = 1 .. steps

Identity: an `end` equal to the first step's temperature.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etude.engine.settings import LEAST_TEMPERATURE, Sampling
from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class TemperatureScheduleSettings:
    """Linear temperature schedule."""

    end: float
    """Temperature of the last step; evaluation samples at that of the first."""

    def __post_init__(self) -> None:
        if self.end < LEAST_TEMPERATURE:
            raise UserError(
                f"temperature_schedule.end must be {LEAST_TEMPERATURE} or more, got {self.end}: at 0 all attempts at a task are equal"
            )


def sampling_at(first: Sampling, end: float, step: int, steps: int) -> Sampling:
    """Return the sampling parameters of step `step` of `steps`, counted from 1.

    >>> [sampling_at(Sampling(), 0.5, step, 3).temperature for step in (1, 2, 3)]
    [1.0, 0.75, 0.5]
    """
    share = (step - 1) / (steps - 1) if steps > 1 else 0.0
    return replace(first, temperature=(1 - share) * first.temperature + share * end)


class TemperatureSchedule(Callback):
    """Sets the temperature of the sampler, and of the learner, which computes ratios at it."""

    name, Settings = "temperature_schedule", TemperatureScheduleSettings
    excludes = (
        Excludes("callbacks.synthetic_tasks", "leave synthetic_tasks out", "changes the temperature of attempts at given tasks alone"),
    )

    def start(self, run: "PracticeRun") -> None:
        self.run, self.first = run, run.sampler.sampling

    def _at(self, step: int) -> Sampling:
        return sampling_at(self.first, self.settings.end, step, self.run.settings.steps)

    def before_rollout(self, step: int) -> None:
        self.run.sampler.sampling = self._at(step)

    def before_update(self, batch: RolloutBatch) -> Metrics:
        self.run.learner.temperature = self._at(batch.step).temperature
        return {"temperature": self.run.learner.temperature}
