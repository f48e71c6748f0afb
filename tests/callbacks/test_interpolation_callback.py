"""Interpolation moves the practised model towards the start of practice, once, after the last step."""

from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.interpolation import Interpolation, InterpolationSettings
from etude.errors import UserError
from etude.recipes.practice import practice


def moved(factor: float, *, steps: int) -> list[float]:
    """Return the weight of a model that an update adds 1 to in each of two steps, after each."""
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 10.0)
    callback, seen = Interpolation(InterpolationSettings(factor)), []
    callback.start(SimpleNamespace(model=model, settings=SimpleNamespace(steps=steps)))
    for step in (1, 2):
        model.weight.data += 1.0
        callback.after_update(SimpleNamespace(step=step))
        seen.append(model.weight.item())
    return seen


def test_the_last_step_leaves_the_model_that_share_of_the_way_from_the_start():
    assert moved(0.25, steps=2) == [11.0, 10.5]
    assert moved(1.0, steps=2) == moved(0.25, steps=3) == [11.0, 12.0]


def test_a_run_measures_and_saves_the_interpolated_model(tmp_path):
    few = {"steps": 2, "n": 60, "warm_start.steps": 2, "evaluation.n": 5, "evaluation.pass_n": 0, "machine.dtype": "float32"}
    plain, half = (
        practice("tiny", few | more, run=tmp_path / name) for name, more in (("plain", {}), ("half", {"interpolation.factor": 0.5}))
    )
    assert half["interpolation"] == {"factor": 0.5} and "interpolation" not in plain
    begun, after, between = (
        load_weights(tmp_path / run / place) for run, place in (("plain", "checkpoints/warm_start"), ("plain", "model"), ("half", "model"))
    )
    assert any(not torch.equal(begun[name], after[name]) for name in after)
    for name, weight in between.items():
        torch.testing.assert_close(weight, (begun[name] + after[name]) / 2)


def load_weights(folder):
    from etude.models.load import load_model

    return load_model(str(folder))[0].state_dict()


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5])
def test_a_factor_outside_its_range_is_refused(factor):
    with pytest.raises(UserError, match=r"interpolation.factor must be in \(0, 1\]"):
        InterpolationSettings(factor)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"token_budget.tokens": 1000}, "and token_budget is set: leave it out"),
        ({"gate.every": 1}, "and gate is set: leave it out"),
        ({"collapse.action": "stop"}, "and collapse.action stop is set: set it to warn"),
    ],
)
def test_what_may_end_a_run_before_its_last_step_is_refused(settings, said, tmp_path):
    with pytest.raises(UserError, match=f"interpolation has to know the last step, {said}, or leave interpolation out"):
        practice("tiny", {"interpolation.factor": 0.5} | settings, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
