"""Runs that keep exploration alive in one way or another: each says what it did."""

import pytest
from run_outputs import assert_same, attempts_of, practised

from etude.learn.learner import Learner

ENTROPY = {"entropy_bonus.entropy_coef": 0.01, "entropy_bonus.target": 9.0, "entropy_bonus.delta": 0.01, "temperature_schedule.end": 0.5}
ALL = ENTROPY | {
    "learn.loss": "clip_cov",
    "learn.covariance.ratio": 0.1,
    "learn.covariance.clip_cov_lb": 0.01,
    "learn.advantage": "pass_at_k",
    "learn.pass_k": 2,
    "reward_shaping.method": "novelty",
    "learn.minibatches_per_epoch": 2,
    "rollout.prompt_variants": ["", "Be bold."],
}


def test_a_run_follows_its_schedules(small, tmp_path, monkeypatch):
    seen, real = [], Learner.update

    def spy(self, examples, *rest, **options):
        seen.append((self.temperature, self.entropy_bonus, {example.prompt for example in examples}))
        return real(self, examples, *rest, **options)

    monkeypatch.setattr(Learner, "update", spy)
    small(tmp_path / "whole", ALL)
    found = practised(tmp_path / "whole")
    assert [row["temperature"] for row in found] == pytest.approx([1, 5 / 6, 4 / 6, 0.5])
    assert [row["entropy_bonus/coef"] for row in found] == pytest.approx([0.01, 0.02, 0.03, 0.04])
    assert (seen[-1][0], seen[-1][1]) == (found[-1]["temperature"], found[-1]["entropy_bonus/coef"])
    assert all({"distinct_answers", "distinct_forms", "pass_at_1", "pass_at_2", "pass_at_4"} <= row.keys() for row in found)
    assert any(row.get("covariance_share") for row in found)
    assert {row["score"] for row in attempts_of(tmp_path / "whole")} <= {0.0, 1.0}  # rewards, not what they were shaped into


def test_settings_at_their_identity_change_no_byte_of_the_model(small, finished, tmp_path):
    at_identity = {
        "rollout.prompt_variants": [""],
        "temperature_schedule.end": 1.0,
        "reward_shaping.method": "unlikeliness",
        "reward_shaping.weight": 0.0,
    }
    small(tmp_path / "run", at_identity | {"learn.loss": "clip_cov", "learn.covariance.ratio": 0.0})
    assert_same(tmp_path / "run", finished, ["model/model.safetensors"])
