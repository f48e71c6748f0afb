"""Policy losses that restrain the few tokens by which entropy falls: those whose log-prob and advantage are both high, or both low.

With the advantage A_t and the log-prob under the current model, over all N tokens of a batch that have an advantage:

cov_t     (A_t - mean A) (log pi_t - mean log pi)
clip_cov  as `ppo`, but a random sample of the tokens with clip_cov_lb < cov_t < clip_cov_ub (and not clipped anyway) loses its
          gradient
kl_cov    -r_t A_t, without a clip, plus ppo_kl_coef · |log pi_t - log behaviour_t| for the tokens with the largest cov_t

The number of these tokens is ratio · N, rounded down, but at least one, as in the source (arXiv 2505.22617 and its code): a ratio of 2e-4
of a batch of fewer than 10,000 tokens is one token. Ratio 0 is none.

A loss sees a micro-batch, but means, largest and sampled tokens are those of the whole batch: `Covariance.mark` picks them before the batch
is cut, from log-probs of an extra forward pass (a third more work in an update). Random numbers are keyed by update, example and token.
Departure: the source takes both from one of its micro-batches. Attempts without an advantage, because their group has no signal, do not
count in N and means.

Identity: without marks (ratio 0) clip_cov is `ppo`, and kl_cov `ppo` without bounds; so is kl_cov with ppo_kl_coef 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from etude.learn.example import Example, Weights
from etude.learn.logprobs import Outputs
from etude.learn.loss_settings import CovarianceSettings
from etude.learn.losses.policy import Metrics, clipped_surrogates
from etude.learn.losses.tokens import Tokens
from etude.randomness import seed_for, uniforms


@dataclass(frozen=True)
class Covariance:
    """Marks the tokens of a batch that its loss restrains."""

    loss: str
    """`clip_cov` or `kl_cov`."""
    settings: CovarianceSettings
    clip_low: float
    clip_high: float
    seed: int

    def mark(self, examples: Sequence[Example], logprobs: Sequence[Weights], update: int) -> list[Example]:
        """Return the examples with `marks`: 1 (`kl_cov`: the coefficient) for restrained tokens, 0 elsewhere. `logprobs` are the current
        log-probs of their completions' tokens, `update` counts the updates before this one.
        """
        members = [place for place, example in enumerate(examples) if example.policy is not None]
        if not members:
            return list(examples)
        advantages_N = _flat([examples[place].policy for place in members])
        logprobs_N = _flat([logprobs[place] for place in members])
        order_N = np.argsort(-covariances(advantages_N, logprobs_N), kind="stable")
        if self.loss == "clip_cov":
            behaviour_N = _flat([examples[place].behaviour_logprobs for place in members])
            drawn_N = np.concatenate([self._draws(update, place, len(examples[place].completion)) for place in members])
            order_N = order_N[self._may_be_drawn(advantages_N, logprobs_N, behaviour_N)[order_N]]
            order_N = order_N[np.argsort(drawn_N[order_N], kind="stable")]
        number = max(1, int(self.settings.ratio * len(advantages_N))) if self.settings.ratio else 0
        marks_N = np.zeros(len(advantages_N))
        marks_N[order_N[:number]] = self.settings.ppo_kl_coef if self.loss == "kl_cov" else 1.0
        ends = np.cumsum([len(examples[place].completion) for place in members])
        marked = dict(zip(members, np.split(marks_N, ends[:-1]), strict=True))
        return [replace(each, marks=tuple(marked[i].tolist())) if i in marked else each for i, each in enumerate(examples)]

    def _may_be_drawn(self, advantages_N: np.ndarray, logprobs_N: np.ndarray, behaviour_N: np.ndarray) -> np.ndarray:
        """Return whether the covariance is between the bounds, and the gradient not clipped anyway."""
        covariance_N, ratio_N = covariances(advantages_N, logprobs_N), np.exp(logprobs_N - behaviour_N)
        is_clipped_N = ((advantages_N > 0) & (ratio_N > 1 + self.clip_high)) | ((advantages_N < 0) & (ratio_N < 1 - self.clip_low))
        return (self.settings.clip_cov_lb < covariance_N) & (covariance_N < self.settings.clip_cov_ub) & ~is_clipped_N

    def _draws(self, update: int, place: int, tokens: int) -> np.ndarray:
        """Return a random number in [0, 1) for every token of an example."""
        return uniforms(np.full(tokens, seed_for(self.seed, self.loss, update, place), dtype=np.uint64), np.arange(tokens))


def covariances(advantages_N: np.ndarray, logprobs_N: np.ndarray) -> np.ndarray:
    """Return (A - mean A) (log pi - mean log pi) of every token."""
    return (advantages_N - advantages_N.mean()) * (logprobs_N - logprobs_N.mean())


def clip_cov(outputs: Outputs, tokens: Tokens, *, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    """Return PPO's clipped surrogate, without the marked tokens."""
    ratio_N = (outputs.logprobs_N - tokens.behaviour_N).exp()
    plain_N, clipped_N = clipped_surrogates(ratio_N, tokens, clip_low, clip_high)
    is_kept_N = tokens.marks_N == 0
    loss = -(torch.minimum(plain_N, clipped_N) * is_kept_N * tokens.shares_N).sum()
    return loss, {"clip_share": (clipped_N < plain_N).float().mean(), "covariance_share": _share(~is_kept_N, ratio_N)}


def kl_cov(outputs: Outputs, tokens: Tokens, *, clip_low: float, clip_high: float) -> tuple[torch.Tensor, Metrics]:
    """Return the surrogate without a clip, with a penalty on the distance of marked tokens to the behaviour policy. The bounds are not
    used.
    """
    log_ratio_N = outputs.logprobs_N - tokens.behaviour_N
    terms_N = tokens.marks_N * log_ratio_N.abs() - log_ratio_N.exp() * tokens.weights_N
    return (terms_N * tokens.shares_N).sum(), {
        "clip_share": torch.zeros(()),
        "covariance_share": _share(tokens.marks_N > 0, log_ratio_N),
    }


def _share(is_marked_N: torch.Tensor, like_N: torch.Tensor) -> torch.Tensor:
    return is_marked_N.expand_as(like_N).float().mean()


def _flat(rows: Sequence[Weights | None]) -> np.ndarray:
    return np.array([value for row in rows for value in row or ()])
