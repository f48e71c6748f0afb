"""Interpolation moves the practised model towards the start of practice, once, after the last step."""

from types import SimpleNamespace

import pytest
import torch

from etude.callbacks.interpolation import Interpolation, InterpolationSettings
from etude.errors import UserError
from etude.evaluation.retention import OLD_KNOWLEDGE, make_probe
from etude.models.load import load_model
from etude.recipes.practice import practice

FEW = {"steps": 2, "n": 60, "warm_start.steps": 2, "evaluation.n": 5, "evaluation.pass_n": 0, "machine.dtype": "float32"}
PROBED = FEW | {"retention.probe": True, "interpolation.factor": 1.0}


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
    plain, half = (
        practice("tiny", FEW | more, run=tmp_path / name) for name, more in (("plain", {}), ("half", {"interpolation.factor": 0.5}))
    )
    assert half["interpolation"] == {"factor": 0.5} and "interpolation" not in plain
    begun, after, between = (
        load_weights(tmp_path / run / place) for run, place in (("plain", "checkpoints/warm_start"), ("plain", "model"), ("half", "model"))
    )
    assert any(not torch.equal(begun[name], after[name]) for name in after)
    for name, weight in between.items():
        torch.testing.assert_close(weight, (begun[name] + after[name]) / 2)


def load_weights(folder):
    return load_model(str(folder))[0].state_dict()


def assert_equal_weights(one, other):
    torch.testing.assert_close(load_weights(one), load_weights(other))


def shipped_kl(start, now):
    """Return the mean KL(start || now) over the tokens of the shipped text, each window read alone."""
    model, tokenizer = load_model(str(start))
    other, _ = load_model(str(now))
    windows = make_probe((OLD_KNOWLEDGE / "text.txt").read_text(), [], tokenizer, window_tokens=64, text_tokens=8192, room=64).windows
    total, number = 0.0, 0
    with torch.no_grad():
        for window in windows:
            before, after = (each(input_ids=torch.tensor([window])).logits[0, :-1].log_softmax(-1) for each in (model, other))
            total += (before.exp() * (before - after)).sum().item()
            number += len(window) - 1
    return total / number


def test_a_bound_on_the_divergence_leaves_the_farthest_model_within_it(tmp_path):
    practice("tiny", FEW, run=tmp_path / "plain")
    begun = tmp_path / "plain" / "checkpoints" / "warm_start"
    whole = shipped_kl(begun, tmp_path / "plain" / "model")
    bounded = practice("tiny", PROBED | {"interpolation.max_kl": whole / 4}, run=tmp_path / "bounded")
    found = bounded["interpolation"]
    assert 0.3 < found["factor"] < 0.7  # the divergence grows with about the square of the way
    assert found["kl"] == pytest.approx(shipped_kl(begun, tmp_path / "bounded" / "model"), rel=1e-3)
    assert found["kl"] <= whole / 4
    practice("tiny", FEW | {"interpolation.factor": round(found["factor"] + 0.01, 2)}, run=tmp_path / "farther")
    assert shipped_kl(begun, tmp_path / "farther" / "model") > whole / 4
    free = practice("tiny", PROBED | {"interpolation.max_kl": 2 * whole}, run=tmp_path / "free")
    assert free["interpolation"]["factor"] == 1.0
    assert_equal_weights(tmp_path / "free" / "model", tmp_path / "plain" / "model")


def test_a_run_that_is_resumed_after_its_last_step_still_tells_the_factor():
    callback = Interpolation(InterpolationSettings(factor=1.0, max_kl=0.1))
    callback.found = {"factor": 0.37, "kl": 0.0625}
    resumed = Interpolation(callback.settings)
    resumed.load_state_dict(callback.state_dict())
    assert resumed.finish() == callback.found
    assert resumed.sentence(resumed.found).endswith(
        "37% of the way from the start of practice to its last update, 0.062 nats a token from the start"
    )


def test_a_bound_without_texts_to_measure_it_on_is_refused(tmp_path):
    bounded = PROBED | {"interpolation.max_kl": 0.1}
    with pytest.raises(UserError, match=r"max_kl is measured on the texts of the retention probe, and retention.probe is false"):
        practice("tiny", bounded | {"retention.probe": False}, run=tmp_path / "run")
    questions = tmp_path / "questions.jsonl"
    questions.write_text((OLD_KNOWLEDGE / "questions.jsonl").read_text())
    with pytest.raises(UserError, match=r"and there are none: set retention.text"):
        practice("tiny", bounded | {"retention.choices": [str(questions)]}, run=tmp_path / "run")
    with pytest.raises(UserError, match=r"interpolation.max_kl must be above 0 nats a token, got 0"):
        InterpolationSettings(max_kl=0)
    assert not (tmp_path / "run").exists()


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
