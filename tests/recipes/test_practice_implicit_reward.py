"""Practice with process rewards by a second model that learns from outcomes."""

import pytest
from run_outputs import practised

IMPLICIT = {
    "implicit_reward.coef": 1.0,
    "implicit_reward.beta": 0.5,
    "implicit_reward.optimizer.learning_rate": 1e-3,
    "learn.optimizer.learning_rate": 5e-4,
}


def test_it_is_asked_before_it_learns_and_changes_what_is_learned(small, tmp_path, finished):
    small(tmp_path / "run", IMPLICIT)
    rows = practised(tmp_path / "run")
    assert rows[0]["implicit_reward/auc_within_task"] in (0.5, None) and rows[0]["implicit_reward/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert len({row["implicit_reward/loss"] for row in rows}) == len(rows)
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() != (finished / "model" / "model.safetensors").read_bytes()


def test_without_anything_learned_it_changes_nothing(small, tmp_path):
    """Identity: rewards that are all 0 (here since its rate rises from nearly nothing) leave the outcome's advantage as it is."""
    slow = IMPLICIT | {"implicit_reward.optimizer.warmup_steps": 10**9, "steps": 2}
    small(tmp_path / "with", slow)
    small(tmp_path / "without", {"learn.optimizer.learning_rate": 5e-4, "steps": 2})
    for row, plain in zip(practised(tmp_path / "with"), practised(tmp_path / "without"), strict=True):
        assert {name: row[name] for name in plain} == plain
