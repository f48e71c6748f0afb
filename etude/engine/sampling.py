"""Draw next tokens from logits, without sorting the vocabulary unless top-p asks for it.

The distribution sampled from is softmax(logits / temperature) restricted, in this order, to the `top_k` most likely tokens, to the
smallest set whose mass reaches `top_p` (Holtzman et al. 2020, arXiv 1904.09751), and to tokens at least `min_p` times as likely as the
best one (Nguyen et al. 2024, arXiv 2407.01082), then renormalised. The log-prob returned is that of this distribution: the behaviour
log-prob. Temperature 0 is greedy: the log-prob is then the model's own at temperature 1, since a point mass says nothing.
Identity: temperature 1, top_p 1, top_k 0, min_p 0 is the model's distribution.

Shapes: B rows, V vocabulary.
"""

from dataclasses import dataclass

import torch

from etude.errors import UserError

_BLOCK = 256
"""Tokens in a block of the two-level inverse CDF."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this mass; in (0, 1], 1 keeps all."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share of the likeliest one's probability; in [0, 1), 0 keeps all."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (off) or more, got {self.top_k}")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p must be in [0, 1), got {self.min_p}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


GREEDY = Sampling(temperature=0.0)


def sample(logits_BV: torch.Tensor, sampling: Sampling, uniform_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and behaviour log-probs for each row; `uniform_B` in [0, 1) decides the draw (unused when greedy)."""
    logits_BV = logits_BV.float()
    if sampling.is_greedy:
        tokens_B = logits_BV.argmax(-1)
    else:
        logits_BV = restrict(logits_BV / sampling.temperature, sampling)
        tokens_B = inverse_cdf(logits_BV.softmax(-1), uniform_B)
    chosen_B = logits_BV.gather(-1, tokens_B[:, None]).squeeze(-1)
    return tokens_B, chosen_B - logits_BV.logsumexp(-1)


def restrict(logits_BV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The logits with -inf at the tokens that top-k, top-p and min-p leave out."""
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


def inverse_cdf(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """The token at which the cumulated probability passes `uniform_B`: first its block, then its place in the block."""
    rows, vocabulary = probs_BV.shape
    padding = -vocabulary % _BLOCK
    blocks_BNK = torch.nn.functional.pad(probs_BV, (0, padding)).view(rows, -1, _BLOCK)
    cumulated_BN = blocks_BNK.sum(-1, dtype=torch.float64).cumsum(-1)
    target_B1 = uniform_B.to(cumulated_BN)[:, None] * cumulated_BN[:, -1:]
    block_B1 = torch.searchsorted(cumulated_BN, target_B1, right=True).clamp(max=cumulated_BN.shape[-1] - 1)
    before_B1 = cumulated_BN.gather(-1, block_B1) - blocks_BNK.sum(-1, dtype=torch.float64).gather(-1, block_B1)
    inside_BK = blocks_BNK[torch.arange(rows), block_B1.squeeze(-1)].double()
    place_B1 = torch.searchsorted(inside_BK.cumsum(-1), (target_B1 - before_B1).clamp(min=0), right=True)
    last_B1 = _BLOCK - 1 - (inside_BK > 0).flip(-1).int().argmax(-1, keepdim=True)  # rounding never picks an impossible token
    return (block_B1 * _BLOCK + torch.minimum(place_B1, last_B1)).squeeze(-1)
