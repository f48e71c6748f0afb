"""Divergence from a reference model, KL(pi || ref), estimated on the sampled tokens.

    r · (ref / pi - log(ref / pi) - 1),   r = pi / behaviour, with its gradient

The bracket is k3 (Schulman 2020, "Approximating KL divergence"; GRPO, arXiv 2402.03300 eq. 4), never negative. In expectation over tokens
of the behaviour policy, each after the sampled prefix, this is KL(pi || ref), and its gradient is that of KL(pi || ref), also if pi has
moved away from the behaviour policy (DeepSeek-V3.2, arXiv 2512.02556; TRL's `use_bias_correction_kl`). k3 without r, as in GRPO, has the
gradient of KL(ref || pi), and after the first update of a batch another value. Departure: TRL takes the ratio of the whole sequence if its
policy loss does; here r is always the token's own.
Identity: coefficient 0, or pi = reference, leaves the update unchanged (value and gradient 0).
"""

import torch

from etude.learn.logprobs import Outputs
from etude.learn.losses.tokens import Tokens


def kl(outputs: Outputs, tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return Σ shares · weights · r · k3; the metric `kl_reference` is the mean of r · k3 over tokens."""
    log_ratio_N = tokens.reference_N - outputs.logprobs_N
    divergence_N = (outputs.logprobs_N - tokens.behaviour_N).exp() * (log_ratio_N.exp() - log_ratio_N - 1)
    return (divergence_N * tokens.weights_N * tokens.shares_N).sum(), {"kl_reference": divergence_N.detach().mean()}
