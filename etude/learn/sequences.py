"""Losses over the log-likelihoods of whole completions (pairs of them, or each with a score), as updates of a learner.

Such a loss needs completions from different micro-batches. Its derivative by each completion's log-likelihood is a number, and the gradient
of a log-likelihood is that of a sum over tokens, so an update has two passes: one without gradient, which gives the loss all
log-likelihoods of its batch; then an ordinary update in the `likelihood` stream, where every token of a completion is weighted by the
derivative. This costs an extra forward pass (a third). Shared prefixes of completions, mainly prompts, are computed once in both passes,
however they are cut into micro-batches. The model is the same in both passes and has no dropout, so the gradient is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from etude.learn.example import Example
from etude.learn.learner import BatchSize, Learner, Stream
from etude.learn.losses import negative_log_likelihood

SequenceLoss = Callable[[torch.Tensor], tuple[torch.Tensor, dict[str, float]]]
"""Log-likelihoods of S completions → scalar and metrics."""

LIKELIHOOD = Stream("likelihood", negative_log_likelihood, loss_agg_mode="seq-mean-token-sum-norm")
"""The stream that a learner needs for these updates."""


def update_on_sequences(learner: Learner, completions: Sequence[Example], loss: SequenceLoss) -> dict[str, float]:
    """Make one optimizer step of a learner that has the stream `LIKELIHOOD`; return the metrics of the loss and the update."""
    if not completions:
        return {}
    likelihood_S = likelihoods(learner.logprobs(completions)).requires_grad_()
    value, metrics = loss(likelihood_S)
    (slope_S,) = torch.autograd.grad(value, likelihood_S)
    size = BatchSize.of(completions)
    weights = (-slope_S * size.sequences).tolist()
    weighed = [
        replace(completion, likelihood=(weight,) * len(completion.completion))
        for completion, weight in zip(completions, weights, strict=True)
    ]
    found = learner.update(weighed, size)
    found.pop("likelihood_loss")  # meaningless: the weights are a derivative
    return found | metrics


def likelihoods(logprobs: Sequence[Sequence[float]]) -> torch.Tensor:
    """Sum the log-probs of each completion's tokens."""
    return torch.tensor([sum(own) for own in logprobs], dtype=torch.float64)
