"""Divergence from a reference model, estimated on the tokens that were sampled.

k3 (Schulman 2020, "Approximating KL divergence"; GRPO, arXiv 2402.03300 eq. 4): ref/pi - log(ref/pi) - 1, unbiased for KL(pi || ref) on
tokens of pi and never negative. Identity: coefficient 0, or pi = reference, leaves the update unchanged (value and gradient 0).
"""

import torch

from etude.learn.logprobs import Outputs
from etude.learn.losses.tokens import Tokens


def kl(outputs: Outputs, tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Σ shares · weights · k3; the metric `kl_reference` is its mean over tokens."""
    log_ratio_N = tokens.reference_N - outputs.logprobs_N
    divergence_N = log_ratio_N.exp() - log_ratio_N - 1
    return (divergence_N * tokens.weights_N * tokens.shares_N).sum(), {"kl_reference": divergence_N.detach().mean()}
