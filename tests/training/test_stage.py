"""A training stage counts its steps from 1, wherever it begins."""

import pytest

from etude.console.reporter import Silent
from etude.training.interruption import Interrupted, Interruption
from etude.training.stage import Stage


@pytest.mark.parametrize(("done", "steps"), [(0, [1, 2, 3]), (2, [3]), (3, [])])
def test_what_prepares_a_step_and_what_learns_from_it_are_told_the_same_number(done, steps):
    prepared, updated, saved = [], [], []
    stage = Stage(
        phase="practice",
        kind="step-",
        order=0,
        page="practice",
        total=3,
        every=2,
        saves_last=True,
        prepare=lambda step: prepared.append(step) or f"of step {step}",
        update=lambda step, found: updated.append((step, found)),
    )
    stage.train(done, saved.append, Silent(), Interruption(), lambda: False)
    assert prepared == steps and updated == [(step, f"of step {step}") for step in steps]
    assert saved == [step for step in steps if step in (2, 3)]


def test_a_stage_that_is_stopped_saves_the_step_that_was_done():
    def stopped(step):
        if step == 3:
            raise Interrupted(15)

    saved = []
    stage = Stage("warm_start", "warm-", -5, "warm_start", 5, 0, False, prepare=stopped, update=lambda step, _: None)
    with pytest.raises(Interrupted) as stop:
        stage.train(0, saved.append, Silent(), Interruption(), lambda: False)
    assert saved == [2] and stop.value.note == "after warm start step 2 of 5"


def test_a_stage_that_is_over_makes_no_further_step_and_saves_its_last_one():
    updated, saved = [], []
    how = {"page": "practice", "total": 5, "every": 0, "saves_last": True, "prepare": lambda step: None}
    stage = Stage("practice", "step-", 0, update=lambda step, _: updated.append(step), **how)
    stage.train(0, saved.append, Silent(), Interruption(), lambda: len(updated) == 3)
    assert updated == [1, 2, 3] and saved == [3]
