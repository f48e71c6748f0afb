"""Replay: train on general text and answers during practice, so that what they teach is not lost.

Every update reads `ratio` times as many replayed tokens as own tokens were sampled for it, groups without signal included. A replayed token
has the share in the mean of an own token, and own tokens keep theirs: the batch is counted without replay, so the gradient is that of
practice plus

    ratio · (share of all own tokens) · mean over replayed tokens of ( imitate · -log pi(token)  +  kl_coef · D(token) )

and a replayed token pulls like an own one of advantage 1. If shares are by sequence, an own sequence's share does not depend on its
length; a replayed token then has 1 / (own tokens), which gives the same sum.

D needs no labels: it keeps the model close to the one at the start of practice on the text (self-distillation). With p that model's
probability of the text's token and q the current model's,

    D = p log(p / q) + (1 - p) log((1 - p) / (1 - q))

the divergence KL(start || now) of "this token or another one": a lower bound of the divergence over the whole vocabulary (data processing
inequality), 0 if p = q, with the exact gradient (q - p) / (1 - q) in log q. The whole vocabulary's divergence would need the start's logits
at every replayed token; this needs only log-probs that are computed anyway. The callback `kl_penalty` is the other divergence,
KL(now || start) on own tokens.

The pieces of an update depend only on the seed, the step and the update's number, so a resumed run needs no state. Text and answers are
read at temperature 1, as for perplexity, whatever the sampling temperature. Identity: ratio 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from etude.learn.example import Example
from etude.learn.logprobs import Outputs
from etude.learn.losses.tokens import Tokens
from etude.randomness import seed_for

_LEAST_NATS = 1e-6
"""Least nats of a token, so that the probability of other tokens is not 0."""


class Replay:
    """The pieces of a run, and the choice of pieces for each update."""

    def __init__(
        self,
        pieces: Sequence[Example],
        ratio: float,
        kl_coef: float,
        seed: int,
        with_reference: Callable[[Sequence[Example]], list[Example]] | None = None,
    ) -> None:
        """Set the pieces and coefficients; `with_reference` adds the log-probs of the model at the start of practice, needed if
        `kl_coef` is not 0.
        """
        self.pieces, self.ratio, self.kl_coef, self.seed, self.with_reference = pieces, ratio, kl_coef, seed, with_reference
        self.begin(1)

    def begin(self, step: int, factor: float = 1.0) -> None:
        """Begin a step, counted from 1, with the ratio times `factor`."""
        self.step, self.factor, self.number = step, factor, 0
        self.tokens = 0
        """Tokens replayed since the step began."""

    def pull(self, own_tokens: int) -> list[Example]:
        """Return the examples that the step's next update replays."""
        self.number += 1
        wanted = round(self.ratio * self.factor * own_tokens)
        drawn = draw(self.pieces, wanted, seed_for(self.seed, "replay", self.step, self.number))
        self.tokens += wanted
        return self.with_reference(drawn) if self.kl_coef and self.with_reference else drawn


def draw(pieces: Sequence[Example], tokens: int, key: int) -> list[Example]:
    """Return pieces with `tokens` completion tokens in all, in an order of their own for each key; all come before one repeats, and the
    last one is cut. All tokens have weight 1.
    """
    generator, drawn, left = np.random.default_rng(key), [], tokens
    while left > 0:
        for place in generator.permutation(len(pieces)):
            piece = pieces[int(place)]
            completion = piece.completion[:left]
            drawn.append(replace(piece, completion=completion, replay=(1.0,) * len(completion)))
            left -= len(completion)
            if left <= 0:
                break
    return drawn


def replay_loss(imitate: float, kl_coef: float) -> Callable[[Outputs, Tokens], tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Return the loss of the stream of replayed tokens."""

    def loss(outputs: Outputs, tokens: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        nats_N = -outputs.logprobs_N
        total_N, metrics = imitate * nats_N, {"replay_nats": nats_N.detach().mean()}
        if kl_coef:
            divergence_N = divergence(tokens.reference_N, outputs.logprobs_N)
            total_N = total_N + kl_coef * divergence_N
            metrics["replay_divergence"] = divergence_N.detach().mean()
        return (total_N * tokens.weights_N * tokens.shares_N).sum(), metrics

    return loss


def divergence(start_N: torch.Tensor, now_N: torch.Tensor) -> torch.Tensor:
    """Return KL(start || now) in nats of "this token or another one", from the token's log-probs."""
    start_N, now_N = _below_one(start_N), _below_one(now_N)
    p_N = start_N.exp()
    return p_N * (start_N - now_N) + (1 - p_N) * (torch.log(-torch.expm1(start_N)) - torch.log(-torch.expm1(now_N)))


def _below_one(logprobs_N: torch.Tensor) -> torch.Tensor:
    """Clamp log-probs to at most `-_LEAST_NATS`; the gradient of those above is that of the bound."""
    return logprobs_N + (logprobs_N.clamp(max=-_LEAST_NATS) - logprobs_N).detach()
