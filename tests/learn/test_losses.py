from functools import partial
from math import exp, log

import pytest
import torch

from etude.learn.logprobs import Outputs
from etude.learn.losses import POLICY_LOSSES, kl, negative_log_likelihood
from etude.learn.losses.covariance import clip_cov, kl_cov
from etude.learn.losses.policy import cispo, gspo, ppo
from etude.learn.losses.tokens import Tokens, shares

CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def evaluate(loss, logprobs, weights, behaviour=None, reference=None, share=1.0, sequences=None, marks=None):
    """Value, gradient for the log-probs, and metrics."""
    logprobs_N = torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)
    n = len(logprobs)
    tokens = Tokens(
        weights_N=torch.tensor(weights, dtype=torch.float64),
        shares_N=torch.full((n,), share, dtype=torch.float64),
        sequence_N=torch.tensor(sequences or [0] * n),
        behaviour_N=torch.tensor(behaviour or [0.0] * n, dtype=torch.float64),
        reference_N=torch.tensor(reference or [0.0] * n, dtype=torch.float64),
        **({"marks_N": torch.tensor(marks, dtype=torch.float64)} if marks else {}),
    )
    value, metrics = loss(Outputs(logprobs_N, torch.zeros(n)), tokens)
    value.backward()
    return value.item(), logprobs_N.grad.tolist(), metrics


def with_ratios(*ratios):
    """Log-probs and behaviour log-probs that have these ratios."""
    behaviour = [-1.0, -0.5, -2.0][: len(ratios)]
    return [b + log(r) for b, r in zip(behaviour, ratios, strict=True)], behaviour


def test_ppo_by_hand():
    logprobs, behaviour = with_ratios(1.1, 1.5, 0.5)
    value, gradient, metrics = evaluate(partial(ppo, **CLIP), logprobs, [2.0, 1.0, -1.0], behaviour, share=0.5)
    assert value == pytest.approx(-0.5 * (1.1 * 2 + 1.3 * 1 + 0.8 * -1))
    assert gradient == pytest.approx([-0.5 * 1.1 * 2, 0, 0])
    assert metrics["clip_share"].item() == pytest.approx(2 / 3)


def test_ppo_never_holds_back_a_correction():
    logprobs, behaviour = with_ratios(0.5, 1.5)
    value, gradient, metrics = evaluate(partial(ppo, **CLIP), logprobs, [1.0, -1.0], behaviour)
    assert value == pytest.approx(-(0.5 - 1.5))
    assert gradient == pytest.approx([-0.5, 1.5])
    assert metrics["clip_share"].item() == 0


def test_gspo_by_hand():
    logprobs, behaviour = with_ratios(1.2, 0.9, 2.0)
    mean = (1.2 * 0.9) ** 0.5
    value, gradient, metrics = evaluate(partial(gspo, **CLIP), logprobs, [1.0, 1.0, -1.0], behaviour, sequences=[0, 0, 1])
    assert value == pytest.approx(-(mean + mean - 2.0))
    assert gradient == pytest.approx([-mean, -mean, 2.0])
    assert metrics["clip_share"].item() == 0


def test_gspo_clips_a_sequence_as_a_whole():
    logprobs, behaviour = with_ratios(3.0, 0.9, 0.5)
    value, gradient, metrics = evaluate(partial(gspo, **CLIP), logprobs, [1.0, 1.0, 1.0], behaviour, sequences=[0, 0, 1])
    assert value == pytest.approx(-(1.3 + 1.3 + 0.5))
    assert gradient == pytest.approx([0, 0, -0.5])
    assert metrics["clip_share"].item() == pytest.approx(2 / 3)


def test_cispo_by_hand():
    logprobs, behaviour = with_ratios(1.1, 5.0, 0.01)
    value, gradient, metrics = evaluate(partial(cispo, **CLIP), logprobs, [2.0, 1.0, -1.0], behaviour)
    weights = [1.1 * 2, 1.3, -0.01]
    assert value == pytest.approx(-sum(w * p for w, p in zip(weights, logprobs, strict=True)))
    assert gradient == pytest.approx([-w for w in weights])
    assert metrics["clip_share"].item() == pytest.approx(1 / 3)


def test_clip_cov_is_ppo_without_the_marked_tokens():
    logprobs, behaviour = with_ratios(1.1, 1.5, 0.5)
    value, gradient, metrics = evaluate(partial(clip_cov, **CLIP), logprobs, [2.0, 1.0, 1.0], behaviour, share=0.5, marks=[0, 0, 1])
    assert value == pytest.approx(-0.5 * (1.1 * 2 + 1.3))
    assert gradient == pytest.approx([-0.5 * 1.1 * 2, 0, 0])
    assert (metrics["clip_share"].item(), metrics["covariance_share"].item()) == pytest.approx((1 / 3, 1 / 3))
    with_none = [evaluate(partial(loss, **CLIP), logprobs, [2.0, 1.0, -1.0], behaviour)[:2] for loss in (clip_cov, ppo)]
    assert with_none[0] == with_none[1]


def test_kl_cov_by_hand():
    logprobs, behaviour = with_ratios(1.5, 0.5, 1.1)
    value, gradient, metrics = evaluate(partial(kl_cov, **CLIP), logprobs, [2.0, -1.0, 1.0], behaviour, share=0.5, marks=[0.7, 0.7, 0])
    assert value == pytest.approx(0.5 * (-1.5 * 2 + 0.5 - 1.1 + 0.7 * (log(1.5) + log(2))))
    assert gradient == pytest.approx([0.5 * (-3 + 0.7), 0.5 * (0.5 - 0.7), 0.5 * -1.1])
    assert metrics["covariance_share"].item() == pytest.approx(2 / 3)
    open_ends = evaluate(partial(ppo, clip_low=1.0, clip_high=9.0), logprobs, [2.0, -1.0, 1.0], behaviour)
    assert evaluate(partial(kl_cov, **CLIP), logprobs, [2.0, -1.0, 1.0], behaviour)[:2] == open_ends[:2]


@pytest.mark.parametrize("loss", POLICY_LOSSES.values(), ids=POLICY_LOSSES)
def test_on_the_behaviour_policy_every_policy_loss_has_reinforces_gradient(loss):
    logprobs, weights = [-0.3, -1.2, -2.5, -0.1], [1.0, 1.0, -0.5, -0.5]
    _, gradient, metrics = evaluate(partial(loss, **CLIP), logprobs, weights, logprobs, share=0.25, sequences=[0, 0, 1, 1])
    assert gradient == pytest.approx([-0.25 * w for w in weights])
    assert metrics["clip_share"].item() == 0


@pytest.mark.parametrize("loss", POLICY_LOSSES.values(), ids=POLICY_LOSSES)
def test_no_advantage_means_no_gradient(loss):
    value, gradient, _ = evaluate(partial(loss, **CLIP), [-0.3, -1.2], [0.0, 0.0], [-0.1, -1.5])
    assert value == 0 and gradient == pytest.approx([0, 0])


def test_imitation_by_hand():
    value, gradient, _ = evaluate(negative_log_likelihood, [-1.0, -2.0, -0.5], [1.0, 1.0, 0.0], share=0.5)
    assert value == pytest.approx(1.5)
    assert gradient == pytest.approx([-0.5, -0.5, 0])


def test_kl_by_hand():
    logprobs, behaviour = with_ratios(1.5, 1.0, 0.5)
    gaps = (-0.5, 1.0, -2.5)
    reference = [mine + gap for mine, gap in zip(logprobs, gaps, strict=True)]
    value, gradient, metrics = evaluate(kl, logprobs, [1.0, 2.0, 0.0], behaviour, reference, share=0.5)
    terms = [ratio * (exp(gap) - gap - 1) for ratio, gap in zip((1.5, 1.0, 0.5), gaps, strict=True)]
    assert value == pytest.approx(0.5 * (terms[0] + 2 * terms[1]))
    assert gradient == pytest.approx([0.5 * 1.5 * 0.5, 0.5 * 2 * -1.0, 0])  # r (k3 + 1 - ref / pi) = r log(pi / ref)
    assert metrics["kl_reference"].item() == pytest.approx(sum(terms) / 3)


@pytest.mark.parametrize("drift", [0.0, 0.7], ids=["the behaviour policy", "a policy that has moved on"])
def test_kl_has_the_value_and_gradient_of_the_divergence_from_the_start_on_sampled_tokens(drift):
    """In expectation over tokens of the behaviour policy: KL(pi || reference), by autograd over the whole vocabulary."""
    logits_3V = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits_V = logits_3V[0].clone().requires_grad_()
    policy_V, reference_V = logits_V.log_softmax(-1), logits_3V[1].log_softmax(-1)
    exact = (policy_V.exp() * (policy_V - reference_V)).sum()
    (wanted,) = torch.autograd.grad(exact, logits_V, retain_graph=True)
    behaviour_V = (logits_V.detach() + drift * logits_3V[2]).log_softmax(-1)
    tokens = Tokens(behaviour_V.exp(), torch.ones(6), torch.arange(6), behaviour_V, reference_V)
    found, _ = kl(Outputs(policy_V, torch.zeros(6)), tokens)
    assert found.item() == pytest.approx(exact.item())
    torch.testing.assert_close(torch.autograd.grad(found, logits_V, retain_graph=True)[0], wanted)
    other = (reference_V.exp() * (reference_V - policy_V)).sum()
    assert (torch.autograd.grad(other, logits_V)[0] - wanted).norm() > 0.1 * wanted.norm()  # the other divergence pulls elsewhere


def test_shares_by_hand():
    assert shares([2, 8], "token-mean", constant_tokens=1, sequences=4, tokens=20) == [1 / 20, 1 / 20]
    assert shares([2, 8], "seq-mean-token-mean", constant_tokens=1, sequences=4, tokens=20) == [1 / 8, 1 / 32]
    assert shares([2, 8], "seq-mean-token-sum-norm", constant_tokens=16, sequences=4, tokens=20) == [1 / 64, 1 / 64]
