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
PROBED = FEW | {"retention.probe": True}


def test_the_model_ends_that_share_of_the_way_from_the_start():
    def ended(settings: InterpolationSettings) -> float:
        model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(model.weight, 10.0)
        callback = Interpolation(settings)
        callback.start(SimpleNamespace(model=model))
        model.weight.data += 2.0
        callback.after_practice()
        return model.weight.item()

    assert [ended(InterpolationSettings(factor)) for factor in (0.25, 1.0, None)] == [10.5, 12.0, 11.0]


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


def test_a_run_that_ended_after_its_last_step_ends_with_the_same_model_when_it_is_resumed(tmp_path, monkeypatch):
    settings = PROBED | {"interpolation.max_kl": 0.0005}
    whole = practice("tiny", settings, run=tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Interpolation, "after_practice", ending)
        practice("tiny", settings, run=tmp_path / "ended")
    resumed = practice("tiny", settings, run=tmp_path / "ended", resume=True)
    assert 0 < whole["interpolation"]["factor"] < 1 and resumed["interpolation"] == whole["interpolation"]
    for name, weight in load_weights(tmp_path / "ended" / "model").items():
        assert torch.equal(weight, load_weights(tmp_path / "whole" / "model")[name])


def ending(_):
    raise KeyboardInterrupt


def test_a_run_that_a_budget_ends_early_is_interpolated_too(tmp_path):
    more = {"steps": 30, "token_budget.tokens": 400}
    for name, own in (("plain", {}), ("half", {"interpolation.factor": 0.5})):
        practice("tiny", FEW | more | own, run=tmp_path / name)
        steps = (tmp_path / name / "metrics.jsonl").read_text().count('"phase": "practice"')
        assert 1 <= steps < 30
    begun, after, between = (
        load_weights(tmp_path / run / place) for run, place in (("plain", "checkpoints/warm_start"), ("plain", "model"), ("half", "model"))
    )
    assert any(not torch.equal(begun[name], after[name]) for name in after)
    for name, weight in between.items():
        torch.testing.assert_close(weight, (begun[name] + after[name]) / 2)


def test_a_bound_that_no_factor_keeps_leaves_the_start_and_says_so(tmp_path):
    found = practice("tiny", PROBED | {"interpolation.max_kl": 1e-12}, run=tmp_path / "run")["interpolation"]
    assert found == {"factor": 0.0, "kl": 0.0}
    begun, after = (load_weights(tmp_path / "run" / place) for place in ("checkpoints/warm_start", "model"))
    assert all(torch.equal(weight, begun[name]) for name, weight in after.items())
    said = Interpolation(InterpolationSettings(max_kl=1e-12)).sentence(found)
    assert said == "interpolation: a hundredth of the way is beyond interpolation.max_kl: the model is the start of practice"


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
    with pytest.raises(UserError, match=r"interpolation.factor must be at least 0.01 with max_kl"):
        InterpolationSettings(factor=0.005, max_kl=0.1)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5])
def test_a_factor_outside_its_range_is_refused(factor):
    with pytest.raises(UserError, match=r"interpolation.factor must be in \(0, 1\]"):
        InterpolationSettings(factor)
