"""The flat tokens that a loss function sees, and their shares in the mean.

Shapes: N completion tokens of a micro-batch, flat; S sequences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

LossAggMode = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


@dataclass
class Tokens:
    """One stream's data for the N tokens of a micro-batch."""

    weights_N: torch.Tensor
    """Advantage (policy) or weight (imitate, anchor)."""
    shares_N: torch.Tensor
    """Factor of each token's loss in the sum; shares come from the whole batch, so accumulation changes nothing."""
    sequence_N: torch.Tensor
    """Index of each token's sequence; a sequence is never split over micro-batches."""
    behaviour_N: torch.Tensor
    """Behaviour log-probs; 0 if a stream has none."""
    reference_N: torch.Tensor
    """Reference log-probs; 0 if a stream has none."""
    marks_N: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    """Marks from before the batch was cut (`etude.learn.losses.covariance`); 0 without marks."""


def shares(lengths_S: Sequence[int], loss_agg_mode: LossAggMode, *, constant_tokens: int, sequences: int, tokens: int) -> list[float]:
    """Return the share of each sequence's tokens.

    token-mean: 1 / tokens (DAPO, arXiv 2503.14476 eq. 8); seq-mean-token-mean: 1 / (sequences · length) (GRPO, arXiv 2402.03300 eq. 3);
    seq-mean-token-sum-norm: 1 / (sequences · constant_tokens) (Dr. GRPO, arXiv 2503.20783). `sequences` and `tokens` count the batch as
    sampled, including groups dropped for lack of signal, so that dropping them does not change the update. They count the whole batch for
    every stream, even if only some examples enter it: streams add up as their examples do.
    """
    if loss_agg_mode == "token-mean":
        return [1.0 / tokens for _ in lengths_S]
    if loss_agg_mode == "seq-mean-token-mean":
        return [1.0 / (sequences * length) for length in lengths_S]
    return [1.0 / (sequences * constant_tokens) for _ in lengths_S]
