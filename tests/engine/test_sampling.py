import numpy as np
import pytest
import torch

from etude.engine.sampling import GREEDY, Sampling, inverse_cdf, restrict, sample
from etude.errors import UserError

LOGITS = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]]).log()


@pytest.mark.parametrize("vocabulary", [3, 256, 700])
def test_draws_follow_the_exact_distribution(vocabulary):
    logits_1V = torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(0)) * 1.5
    draws = 50_000
    uniform = (torch.arange(draws, dtype=torch.float64) + torch.rand(draws, generator=torch.Generator().manual_seed(1)).double()) / draws
    tokens = torch.cat([sample(logits_1V.expand(5000, -1), Sampling(), part)[0] for part in uniform.split(5000)])
    expected = logits_1V[0].double().softmax(-1).numpy() * draws
    observed = np.bincount(tokens.numpy(), minlength=vocabulary)
    assert observed.sum() == draws
    assert np.abs(observed - expected).max() < 2  # one draw in each small slice: counts are exact up to the slices at the two ends


def test_the_two_level_search_equals_a_plain_cumulated_sum():
    probs_BV = torch.rand(200, 900, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(8)
    probs_BV /= probs_BV.sum(-1, keepdim=True)
    uniform_B = torch.rand(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plain_B = (probs_BV.cumsum(-1) <= uniform_B[:, None]).sum(-1)
    assert inverse_cdf(probs_BV, uniform_B, torch.arange(200)).tolist() == plain_B.tolist()


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(), Sampling(temperature=0.7, top_p=0.9, top_k=20)])
def test_many_draws_from_a_row_equal_draws_from_copies_of_it(sampling):
    logits_BV = torch.randn(5, 600, generator=torch.Generator().manual_seed(0)) * 3
    row_N = torch.tensor([4, 0, 0, 2, 2, 2, 4])
    uniform_N = torch.rand(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = sample(logits_BV, sampling, uniform_N, row_N), sample(logits_BV[row_N], sampling, uniform_N)
    assert found[0].tolist() == expected[0].tolist()
    torch.testing.assert_close(found[1], expected[1])


def test_block_borders_belong_to_the_block_behind_them():
    probs_BV = torch.zeros(4, 520, dtype=torch.float64)
    probs_BV[:, 255], probs_BV[:, 256], probs_BV[:, 519] = 0.25, 0.25, 0.5
    uniform_N = torch.tensor([0.0, 0.25, 0.4999, 0.5], dtype=torch.float64)
    assert inverse_cdf(probs_BV, uniform_N, torch.arange(4)).tolist() == [255, 256, 256, 519]


@pytest.mark.parametrize("vocabulary", [300, 512, 1000])
@pytest.mark.parametrize("scale", [1.0, 5.0, 40.0])
def test_an_impossible_token_is_never_drawn_even_at_the_borders_of_blocks(vocabulary, scale):
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(2000, vocabulary, generator=generator) * scale
    logits_BV[:, [0, 256, 257, -2, -1]] = -torch.inf
    probs_BV = logits_BV.softmax(-1)
    padded_BNK = torch.nn.functional.pad(probs_BV, (0, -vocabulary % 256)).view(2000, -1, 256)
    cumulated_BN = padded_BNK.sum(-1, dtype=torch.float64).cumsum(-1)
    border_B = cumulated_BN[:, 0] / cumulated_BN[:, -1]
    below_one, two = torch.tensor([1 - 2.0**-53, 2.0], dtype=torch.float64)
    for uniform_B in (0 * border_B, below_one.expand(2000), border_B, border_B.nextafter(two), border_B.nextafter(-two)):
        tokens_B = inverse_cdf(probs_BV, uniform_B.clamp(torch.zeros_like(two), below_one), torch.arange(2000))
        assert (probs_BV.gather(-1, tokens_B[:, None]) > 0).all()


@pytest.mark.parametrize(
    ("options", "number"),
    [
        *(({"top_k": k}, number) for k, number in ((2, 2), (1, 1), (99, 5), (0, 5))),
        *(({"top_p": p}, number) for p, number in ((0.49, 1), (0.51, 2), (0.69, 2), (0.71, 3), (1e-9, 1), (1.0, 5))),
        *(({"min_p": p}, number) for p, number in ((0.39, 2), (0.29, 3), (0.01, 5))),
        ({"top_k": 3, "top_p": 0.6}, 2),  # one after another: 0.5 / 0.85 of the three is below 0.6
        ({"top_k": 3, "top_p": 0.55}, 1),
        ({"top_k": 4, "top_p": 0.95, "min_p": 0.25}, 3),
    ],
)
def test_restrictions_keep_so_many_of_the_likeliest_in_any_order_of_the_vocabulary(options, number):
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        kept = torch.isfinite(restrict(LOGITS[:, order], Sampling(**options)))[0]
        assert kept.tolist() == [token < number for token in order]


def test_log_probs_are_those_of_the_renormalised_distribution():
    logits_BV = LOGITS.expand(3, -1)
    tokens_B, logprobs_B = sample(logits_BV, Sampling(top_k=3), torch.tensor([0.1, 0.7, 0.99]))
    assert tokens_B.tolist() == [0, 1, 2]
    assert logprobs_B.exp().tolist() == pytest.approx([0.5 / 0.85, 0.2 / 0.85, 0.15 / 0.85])
    sharp = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05]).square()
    _, logprobs_B = sample(logits_BV, Sampling(temperature=0.5), torch.tensor([0.1, 0.8, 0.999999]))
    assert logprobs_B.exp().tolist() == pytest.approx((sharp / sharp.sum())[[0, 1, 4]].tolist())


def test_temperature_zero_takes_the_best_with_the_models_own_log_prob():
    logits_BV = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    tokens_B, logprobs_B = sample(logits_BV, GREEDY, torch.rand(8))
    assert tokens_B.tolist() == logits_BV.argmax(-1).tolist()
    assert torch.allclose(logprobs_B, logits_BV.log_softmax(-1).max(-1).values)


def test_the_defaults_are_the_models_distribution():
    logits_BV = torch.randn(8, 300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restrict(logits_BV, Sampling()), logits_BV)
    tokens_B, logprobs_B = sample(logits_BV, Sampling(), torch.rand(8, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(logprobs_B, logits_BV.log_softmax(-1).gather(-1, tokens_B[:, None])[:, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1}, r"temperature must be 0 \(greedy\), or 0.001 or more, got -1"),
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"top_k": -1}, r"top_k must be 0 \(off\) or more, got -1"),
        ({"min_p": 1.0}, r"min_p must be in \[0, 1\), got 1.0"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Sampling(**options)
