"""Log-likelihoods of given continuations, by the weights in float32; under a cache policy as the policy would sample them.

    log p(continuation | context) = sum over t of log p(token t | context, tokens before t)

and whether each token is the likeliest one at its place. A context that several continuations share is computed once. Under a cache
policy the context is the prompt, and the policy decides before each token of the continuation what is kept or read, as in decoding: the
first token, whose logits come with the prompt, is the full cache's. Identity: a policy that keeps everything.

Shapes: M predicting positions of a batch, P contexts, B continuations, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from etude.engine.completion import Tokens
from etude.engine.protocols import View
from etude.learn.batches import MicroBatch, can_share_prefixes, pack
from etude.learn.example import Example
from etude.models.heads import head_on_positions

Pair = tuple[Tokens, Tokens]
"""A context and its continuation, each of at least one token."""
Likelihood = tuple[float, bool]
"""Natural log-likelihood of a continuation, and whether greedy decoding gives it."""
_ROWS = 16
"""Rows of logits that are normalised together, so that they stay in the processor's cache."""


@torch.no_grad()
def likelihoods(model: Any, pairs: Sequence[Pair], *, batch_tokens: int) -> list[Likelihood]:
    """Return the likelihood of each continuation, `batch_tokens` positions at a time."""
    device = next(model.parameters()).device
    sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
    examples = [Example(*pair) for pair in pairs]
    for batch in pack(examples, batch_tokens=batch_tokens, shares_prefixes=can_share_prefixes(model.config)):
        batch = batch.to(device)
        logprob_M, is_best_M = _chosen(_logits(model, batch), batch.targets_M)
        rows = zip(batch.example_N.tolist(), logprob_M[batch.triple_N].tolist(), is_best_M[batch.triple_N].tolist(), strict=True)
        for place, logprob, is_best in rows:
            sums[place] += logprob
            greedy[place] &= is_best
    return list(zip(sums, greedy, strict=True))


def _logits(model: Any, batch: MicroBatch) -> torch.Tensor:
    with head_on_positions(model, batch.sources_M):
        read = {"input_ids": batch.tokens_BT, "attention_mask": batch.attention_mask(), "position_ids": batch.positions_BT}
        return model(**read, use_cache=False).logits


def _chosen(logits_MV: torch.Tensor, targets_M: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probs [M] of the targets, and whether each is the likeliest token [M]."""
    logprobs, is_best = [], []
    for logits, targets in zip(logits_MV.split(_ROWS), targets_M.split(_ROWS), strict=True):
        logprobs.append(logits.float().log_softmax(-1).gather(-1, targets[:, None])[:, 0])
        is_best.append(logits.argmax(-1) == targets)
    return torch.cat(logprobs), torch.cat(is_best)


@torch.no_grad()
def viewed_likelihoods(model: Any, pairs: Sequence[Pair], view: View, pad: int, *, batch_tokens: int) -> list[Likelihood]:
    """Return the likelihood of each continuation under a cache policy, as many rows at a time as `batch_tokens` has room for."""
    found: dict[int, Likelihood] = {}
    for part in _parts(pairs, batch_tokens):
        found |= dict(zip(part, _under(model, [pairs[place] for place in part], view, pad), strict=True))
    return [found[place] for place in range(len(pairs))]


def _parts(pairs: Sequence[Pair], batch_tokens: int) -> Iterator[list[int]]:
    """Yield the places of pairs that are computed together: longest contexts first, equal ones behind each other."""
    part: list[int] = []
    longest = 0
    for place in sorted(range(len(pairs)), key=lambda place: (-len(pairs[place][0]), pairs[place][0])):
        length = sum(map(len, pairs[place]))
        if part and max(longest, length) * (len(part) + 1) > batch_tokens:
            yield part
            part, longest = [], 0
        part.append(place)
        longest = max(longest, length)
    if part:
        yield part


def _under(model: Any, pairs: Sequence[Pair], view: View, pad: int) -> list[Likelihood]:
    """Return the likelihoods of continuations that are read token by token."""
    device = next(model.parameters()).device
    contexts = {context: number for number, context in enumerate(dict.fromkeys(context for context, _ in pairs))}
    opened, logits_PV = view.prefill(model, list(contexts), pad)
    rows_B, longest = torch.tensor([contexts[context] for context, _ in pairs]), max(len(continuation) for _, continuation in pairs)
    decoded = opened.begin(torch.arange(len(contexts)), longest, samples=len(pairs))
    decoded.keep(rows_B, longest)
    logits_BV, sums, greedy = logits_PV[rows_B], [0.0] * len(pairs), [True] * len(pairs)
    for place in range(longest):
        tokens_B = torch.tensor([own[place] if place < len(own) else pad for _, own in pairs], device=device)
        logprob_B, is_best_B = _chosen(logits_BV, tokens_B)
        for number, (_, own) in enumerate(pairs):
            if place < len(own):
                sums[number] += logprob_B[number].item()
                greedy[number] &= bool(is_best_B[number])
        if place + 1 < longest:
            logits_BV = decoded.next_logits(tokens_B)
    return list(zip(sums, greedy, strict=True))
