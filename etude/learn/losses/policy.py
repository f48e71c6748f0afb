"""Policy-gradient losses: the effect of a sampled token's advantage on its probability.

With importance sampling ratio r = pi / behaviour of a token and advantage A:

ppo       -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)          PPO, arXiv 1707.06347 eq. 7; DAPO's clip-higher where the two differ
gspo      the same with s = (pi(y) / behaviour(y))^(1 / |y|) for r   GSPO, arXiv 2507.18071 eq. 5-7; clipped at 3e-4 and 4e-4 there (5.1)
cispo     -stop_gradient(min(r, 1 + clip_high)) A log pi             CISPO, arXiv 2506.13585 eq. 4 (no lower cap)

Each takes (outputs, tokens) and returns (scalar, metrics). Behaviour log-probs were recorded while sampling, or are recomputed before a
step's first update (`learn.recompute_old_logprobs`). Recorded ones were rounded by other kernels: a half-precision update finds a standard
deviation of 0.03 between the two at an unchanged policy. That is a tenth of ppo's clip range, but a hundred times gspo's.
Identity: if pi is the behaviour policy (r = 1), all three have the gradient of REINFORCE, -A grad log pi.
"""

import torch

from etude.learn.logprobs import Outputs
from etude.learn.losses.tokens import Tokens

Metrics = dict[str, torch.Tensor]


def ppo(outputs: Outputs, tokens: Tokens, *, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    """Return PPO's clipped surrogate on token ratios."""
    ratio_N = (outputs.logprobs_N - tokens.behaviour_N).exp()
    return _clipped_surrogate(ratio_N, tokens, clip_low, clip_high)


def gspo(outputs: Outputs, tokens: Tokens, *, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    """Return the clipped surrogate on the length-normalised sequence ratio, the same for every token of a sequence.

    As in GSPO-token with equal advantage, the sequence ratio's gradient reaches each token through its own log-prob.
    """
    log_ratio_N = outputs.logprobs_N - tokens.behaviour_N
    mean_S = _sequence_mean(log_ratio_N, tokens.sequence_N)
    ratio_N = mean_S[tokens.sequence_N].exp()
    return _clipped_surrogate(ratio_N, tokens, clip_low, clip_high)


def cispo(outputs: Outputs, tokens: Tokens, *, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    """Return REINFORCE's loss with a capped importance weight without gradient: no token loses its gradient. `clip_low` is not used."""
    ratio_N = (outputs.logprobs_N - tokens.behaviour_N).detach().exp()
    weight_N = ratio_N.clamp(max=1 + clip_high)
    loss = -(weight_N * tokens.weights_N * outputs.logprobs_N * tokens.shares_N).sum()
    return loss, {"clip_share": (ratio_N > 1 + clip_high).float().mean()}


def clipped_surrogates(ratio_N: torch.Tensor, tokens: Tokens, clip_low: float, clip_high: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return r A and clip(r) A of every token; the smaller one counts."""
    return ratio_N * tokens.weights_N, ratio_N.clamp(1 - clip_low, 1 + clip_high) * tokens.weights_N


def _clipped_surrogate(ratio_N: torch.Tensor, tokens: Tokens, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    plain_N, clipped_N = clipped_surrogates(ratio_N, tokens, clip_low, clip_high)
    loss = -(torch.minimum(plain_N, clipped_N) * tokens.shares_N).sum()
    return loss, {"clip_share": (clipped_N < plain_N).float().mean()}


def _sequence_mean(values_N: torch.Tensor, sequence_N: torch.Tensor) -> torch.Tensor:
    sums_S = values_N.new_zeros(int(sequence_N.max()) + 1).index_add(0, sequence_N, values_N)
    counts_S = torch.bincount(sequence_N, minlength=len(sums_S)).clamp(min=1)
    return sums_S / counts_S
