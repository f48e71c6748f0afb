"""What an estimate says of a run before it begins counts all that the run does."""

import time
from pathlib import Path

import pytest

from etude.evaluation import divergence
from etude.recipes import estimate
from etude.recipes.practice import Loop, practice
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.training import checkpoints, practice_run
from etude.training.parse import parse_practice

SIZES = {"n": 40, "warm_start.steps": 1, "steps": 6, "rollout.tasks_per_step": 2, "rollout.num_samples": 2, "rollout.max_new_tokens": 8}
SIZES |= {"evaluation.n": 4, "evaluation.pass_n": 0, "machine.dtype": "float32", "machine.threads": 1}
GATE = {"gate.every": 2, "gate.max_divergence": 20, "gate.divergence_n": 2, "divergence.n": 2}
PROBE = {"retention.probe": True, "retention.n": 4, "retention.text_tokens": 60}


def settings(**more):
    return parse_practice(find_configuration("practice", "tiny"), arguments_from(SIZES | more))


@pytest.fixture
def slow(monkeypatch):
    """`slow(owner, name, seconds)` has a function take so much longer."""

    def become(owner, name, seconds):
        real = getattr(owner, name)

        def call(*given, **named):
            time.sleep(seconds)
            return real(*given, **named)

        monkeypatch.setattr(owner, name, call)

    return become


def test_the_probe_of_old_knowledge_is_counted_for_every_model(slow):
    slow(practice_run, "measure_retention", 0.5)
    found = estimate.estimate(settings(**PROBE), "tiny", None)
    assert 3 * 0.5 < found.evaluation_seconds < 3 * 0.5 + 2  # as it came, after the warm start, after practice


def test_the_gates_measurements_are_counted_with_the_divergence_from_the_start(slow):
    slow(divergence, "_logprobs", 0.2)
    found = estimate.estimate(settings(**GATE), "tiny", None)
    both_starts, looks, end = 2, 3, 1
    assert (both_starts + looks + end) * 0.2 < found.practice_seconds < (both_starts + looks + end) * 0.2 + 3


def test_an_estimate_makes_a_step_with_the_runs_own_loop_and_all_its_callbacks(monkeypatch):
    opened = []
    monkeypatch.setattr(estimate, "_checkpoints_bytes", lambda loop: opened.append(loop) or 0)
    more = {"reward": "majority_vote", "collapse.action": "rollback", "curriculum": "weakness", "entropy_bonus.target": 1}
    estimate.estimate(settings(**PROBE, **more), "tiny", None)
    (loop,) = opened
    assert [callback.name for callback in loop.callbacks] == ["curriculum", "entropy_bonus", "collapse"]
    assert loop.run.held == 0 and set(loop.run.state) == {"curriculum", "entropy_bonus", "collapse"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "start", lambda _: pytest.fail("opened"))
        with pytest.raises(pytest.fail.Exception, match="opened"):
            estimate.estimate(settings(), "tiny", None)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "more",
    [
        {"reward": "majority_vote"},
        {"reward": "majority_vote", "collapse.action": "rollback", "collapse.window": 1, "collapse.constant": 1.0, "collapse.rise": 1.0},
        {**GATE, "reward": "majority_vote", "learn.lora.rank": 4},
        {"step_model": True, "rollout.search.steps.end": "tokens"} | {"implicit_reward.coef": 0.5, "reward": "majority_vote"},
    ],
)
def test_the_disk_that_a_run_takes_is_no_more_than_was_said(more, tmp_path, monkeypatch):
    most, real = [], checkpoints.save_file

    def saved(tensors, path):
        real(tensors, path)
        most.append(_bytes(tmp_path / "run"))

    found = estimate.estimate(settings(**more), "tiny", None)
    monkeypatch.setattr(checkpoints, "save_file", saved)
    practice(settings(**more, save_steps=1), run=tmp_path / "run")
    most.append(_bytes(tmp_path / "run"))
    assert max(most) < 1.02 * found.disk_bytes < 2 * max(most)
