"""Which tokens are held back: by a slow reading of the formula, of the whole batch, whatever it is cut into."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from etude.errors import UserError
from etude.learn.example import Example
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES, Covariance, CovarianceSettings

EXAMPLES = [
    Example((1, 2), (3, 4, 5), policy=(1.0,) * 3, behaviour_logprobs=(-0.1, -3.0, -0.2)),
    Example((1, 2), (6, 7), imitate=(1.0,) * 2),
    Example((1, 2), (3, 8), policy=(-1.0,) * 2, behaviour_logprobs=(-4.0, -0.1)),
]
NOW = [(-0.1, -3.0, -0.2), (-1.0, -9.0), (-4.0, -0.1)]


def marks(loss, examples=EXAMPLES, logprobs=NOW, update=0, seed=0, **settings):
    covariance = Covariance(loss, CovarianceSettings(**settings), 0.2, 0.2, seed)
    return [example.marks for example in covariance.mark(examples, logprobs, update)]


def by_reading():
    """cov of each token of the policy stream, in order."""
    advantages, logprobs = [1, 1, 1, -1, -1], [-0.1, -3.0, -0.2, -4.0, -0.1]
    means = sum(advantages) / 5, sum(logprobs) / 5
    return [(a - means[0]) * (p - means[1]) for a, p in zip(advantages, logprobs, strict=True)]


def test_kl_cov_marks_the_largest_covariances_with_its_coefficient():
    found = by_reading()  # 1.10, -1.22, 1.02, 3.02, -1.66
    assert sorted(found)[-2:] == [found[0], found[3]]
    assert marks("kl_cov", ratio=0.4, ppo_kl_coef=0.5) == [(0.5, 0, 0), None, (0.5, 0)]
    assert marks("kl_cov", ratio=0.59) == [(1, 0, 0), None, (1, 0)]  # 2.95 tokens, rounded down


def test_a_ratio_of_less_than_a_token_is_one_and_a_ratio_of_0_is_none():
    assert marks("kl_cov", ratio=2e-4) == [(0, 0, 0), None, (1, 0)]
    assert marks("kl_cov", ratio=0.0) == marks("clip_cov", ratio=0.0) == [(0, 0, 0), None, (0, 0)]


def test_clip_cov_draws_between_its_bounds_alone():
    assert marks("clip_cov", ratio=1.0, clip_cov_lb=1.05) == [(1, 0, 0), None, (1, 0)]
    assert marks("clip_cov", ratio=1.0, clip_cov_lb=1.0, clip_cov_ub=3.0) == [(1, 0, 1), None, (0, 0)]
    drawn = {tuple(marks("clip_cov", ratio=0.2, seed=seed)) for seed in range(40)}
    assert drawn == {((1, 0, 0), None, (0, 0)), ((0, 0, 1), None, (0, 0)), ((0, 0, 0), None, (1, 0))}
    assert len({tuple(marks("clip_cov", ratio=0.2, update=update)) for update in range(40)}) == 3


def test_what_is_clipped_anyway_is_not_drawn():
    before = [replace(EXAMPLES[0], behaviour_logprobs=(-0.4, -3.0, -0.2)), *EXAMPLES[1:]]  # a ratio of 1.35
    assert marks("clip_cov", before, ratio=1.0, clip_cov_lb=1.05) == [(0, 0, 0), None, (1, 0)]


def test_a_batch_without_advantages_is_left_alone():
    assert Covariance("kl_cov", CovarianceSettings(), 0.2, 0.2, 0).mark([EXAMPLES[1]], [NOW[1]], 0) == [EXAMPLES[1]]


@pytest.mark.parametrize("loss", ["clip_cov", "kl_cov"])
def test_what_is_marked_does_not_hang_on_micro_batches(model_of, loss):
    generator = torch.Generator().manual_seed(0)
    examples, found = [], []
    for advantage in (1.0, -0.5, -1.0, 0.5, 0.25, -0.25):
        tokens = tuple(torch.randint(4, 260, (6,), generator=generator).tolist())
        examples.append(Example((5, 6), tokens, policy=(advantage,) * 6, behaviour_logprobs=(-5.0,) * 6))
    for batch_tokens in (10_000, 20, 1):
        model = model_of("llama", initializer_range=0.3)
        covariance = Covariance(loss, CovarianceSettings(ratio=0.2, clip_cov_lb=0.1), 0.2, 0.2, 0)
        policy = partial(POLICY_LOSSES[loss], clip_low=0.2, clip_high=0.2)
        learner = Learner(
            model, OptimizerSettings(max_grad_norm=1e9), [Stream("policy", policy, mark=covariance.mark)], batch_tokens=batch_tokens
        )
        learner._step = lambda share: {}
        metrics = learner.update(examples)
        found.append((metrics, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])))
    assert found[0][0]["covariance_share"] == pytest.approx(7 / 36)
    for metrics, gradient in found[1:]:
        assert metrics == pytest.approx(found[0][0], rel=1e-4, abs=1e-6)
        assert (gradient - found[0][1]).norm() <= 1e-4 * found[0][1].norm()


@pytest.mark.parametrize("wrong", [{"ratio": 1.1}, {"clip_cov_lb": 5.0}, {"ppo_kl_coef": -1.0}])
def test_wrong_settings_are_told(wrong):
    with pytest.raises(UserError, match=f"learn.covariance.{next(iter(wrong))} must be"):
        CovarianceSettings(**wrong)
