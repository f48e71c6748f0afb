"""Sampling of next tokens from logits; the vocabulary is only sorted for top-p.

The distribution is softmax(logits / temperature) restricted, in this order, to the `top_k` most likely tokens, to the smallest set whose
mass reaches `top_p` (Holtzman et al. 2020, arXiv 1904.09751), and to tokens at least `min_p` times as likely as the best one (Nguyen et al.
2024, arXiv 2407.01082), then renormalised. The returned log-prob is that of this distribution: the behaviour log-prob. Temperature 0 is
greedy decoding: the log-prob is then the model's own at temperature 1, since that of a point mass is always 0.
Identity: temperature 1, top_p 1, top_k 0, min_p 0 is the model's distribution.

Shapes: B rows of logits, N samples, V vocabulary, K blocks of W tokens.
"""

import torch

from etude.engine.settings import GREEDY as GREEDY
from etude.engine.settings import Sampling as Sampling
from etude.kernels.decoding import kernels_for

_BLOCK = 256
"""Tokens in a block of the two-level inverse CDF."""

_ROWS = 8
"""Rows of logits that are converted into weights together."""


def sample(
    logits_BV: torch.Tensor, sampling: Sampling, uniform_N: torch.Tensor, row_N: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample N tokens; returns them with their behaviour log-probs. `uniform_N`: the random numbers in [0, 1) (unused in greedy decoding).
    `row_N`: the row of logits of each sample; by default one sample for each row in order. A row whose logits are not finite gives a
    log-prob that is not finite, and an arbitrary token.
    """
    row_N = torch.arange(len(logits_BV), device=logits_BV.device) if row_N is None else row_N
    temperature = 1.0 if sampling.is_greedy else sampling.temperature
    if sampling.restricts:
        logits_BV, temperature = restrict(logits_BV.float() / temperature, sampling), 1.0
    kernels = kernels_for(logits_BV.device, logits_BV.dtype)
    if kernels:
        return kernels.sample(logits_BV, temperature, None if sampling.is_greedy else uniform_N, row_N)
    weights_BV, top_B = _weights(logits_BV, temperature)
    tokens_N = logits_BV.argmax(-1)[row_N] if sampling.is_greedy else inverse_cdf(weights_BV, uniform_N, row_N)
    normaliser_B = top_B + weights_BV.sum(-1).log()
    return tokens_N, logits_BV[row_N, tokens_N].float() / temperature - normaliser_B[row_N]


def _weights(logits_BV: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return exp(logits / temperature - max) and the max [B] of each row, in float32, few rows at a time to stay in processor caches."""
    weights_BV = torch.empty(logits_BV.shape, dtype=torch.float32, device=logits_BV.device)
    top_B1 = weights_BV.new_empty(len(logits_BV), 1)
    rows = _ROWS if logits_BV.device.type == "cpu" else max(1, len(logits_BV))
    for part, weights, top in zip(logits_BV.split(rows), weights_BV.split(rows), top_B1.split(rows), strict=True):
        weights.copy_(part)
        if temperature != 1:
            weights /= temperature
        torch.amax(weights, -1, keepdim=True, out=top)
        weights.sub_(top).exp_()
    return weights_BV, top_B1[:, 0]


def restrict(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the logits with -inf at the tokens that top-k, top-p and min-p exclude."""
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if sampling.top_p < 1:
        sorted_BV, order_BV = logits_BV.softmax(-1).sort(-1, descending=True)
        mass_before_BV = sorted_BV.cumsum(-1) - sorted_BV
        outside_BV = torch.zeros_like(order_BV, dtype=torch.bool).scatter(-1, order_BV, mass_before_BV >= sampling.top_p)
        logits_BV = logits_BV.masked_fill(outside_BV, -torch.inf)
    if sampling.min_p > 0:
        floor_B1 = logits_BV.max(-1, keepdim=True).values + torch.tensor(sampling.min_p).log()
        logits_BV = logits_BV.masked_fill(logits_BV < floor_B1, -torch.inf)
    return logits_BV


def inverse_cdf(weights_BV: torch.Tensor, uniform_N: torch.Tensor, row_N: torch.Tensor) -> torch.Tensor:
    """Return the token of row `row_N` at which the cumulative share of the weights passes `uniform_N`; its block is found first."""
    rows, vocabulary = weights_BV.shape
    padding = -vocabulary % _BLOCK
    blocks_BKW = (torch.nn.functional.pad(weights_BV, (0, padding)) if padding else weights_BV).view(rows, -1, _BLOCK)
    mass_BK = blocks_BKW.sum(-1).double()
    cumulated_NK = mass_BK.cumsum(-1)[row_N]
    target_N1 = uniform_N.to(cumulated_NK)[:, None] * cumulated_NK[:, -1:]
    block_N1 = torch.searchsorted(cumulated_NK, target_N1, right=True).clamp(max=cumulated_NK.shape[-1] - 1)
    before_N1 = cumulated_NK.gather(-1, block_N1) - mass_BK[row_N].gather(-1, block_N1)
    inside_NW = blocks_BKW[row_N, block_N1.squeeze(-1)].double()
    place_N1 = torch.searchsorted(inside_NW.cumsum(-1), (target_N1 - before_N1).clamp(min=0), right=True)
    last_N1 = _BLOCK - 1 - (inside_NW > 0).flip(-1).int().argmax(-1, keepdim=True)  # rounding must not pick a token of weight 0
    tokens_N1 = block_N1 * _BLOCK + torch.minimum(place_N1, last_N1)
    return tokens_N1.clamp(max=vocabulary - 1).squeeze(-1)  # NaN weights may give any index
