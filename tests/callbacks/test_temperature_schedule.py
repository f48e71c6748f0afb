"""The temperature of each step, where it is sampled and where it is learned from."""

from types import SimpleNamespace

import pytest

from etude.callbacks.temperature_schedule import TemperatureSchedule, TemperatureScheduleSettings
from etude.engine.settings import Sampling
from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch


def temperatures(end, steps, first=1.0):
    """Of the sampler and of the learner at every step; a step of the ledger's is learned from without being sampled."""
    sampler, learner = SimpleNamespace(sampling=Sampling(temperature=first)), SimpleNamespace(temperature=first)
    schedule = TemperatureSchedule(TemperatureScheduleSettings(end))
    schedule.start(SimpleNamespace(sampler=sampler, learner=learner, settings=SimpleNamespace(steps=steps)))
    found = []
    for step in range(1, steps + 1):
        is_kept = step == 2
        if not is_kept:
            schedule.before_rollout(step)
        metrics = schedule.before_update(RolloutBatch(step, [], [], {}, {}))
        assert metrics == {"temperature": learner.temperature}
        assert is_kept or sampler.sampling == Sampling(temperature=learner.temperature)
        found.append(learner.temperature)
    return found


def test_the_temperature_goes_to_its_end_by_equal_amounts():
    assert temperatures(0.5, 5) == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5])
    assert temperatures(1.6, 3, first=0.8) == pytest.approx([0.8, 1.2, 1.6])
    assert temperatures(0.5, 1) == [1.0]
    assert temperatures(0.7, 4, first=0.7) == pytest.approx([0.7] * 4)


def test_a_temperature_of_0_is_refused():
    with pytest.raises(UserError, match=r"temperature_schedule\.end must be 0\.001 or more, got 0\.0"):
        TemperatureScheduleSettings(0.0)
