"""Imitation: weighted negative log-likelihood, -w log pi. With weight 1 and token shares it is ordinary supervised fine-tuning: the
learner reads this stream at temperature 1.
"""

import torch

from etude.learn.logprobs import Outputs
from etude.learn.losses.tokens import Tokens


def negative_log_likelihood(outputs: Outputs, tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return Σ shares · weights · (-log pi)."""
    return -(outputs.logprobs_N * tokens.weights_N * tokens.shares_N).sum(), {}
