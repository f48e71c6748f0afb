"""KL divergence of a model from the start at every token of given texts, exactly: KL(start || now), the forward direction.

    KL_t = sum over v of p_start(v | x_<t) (log p_start(v | x_<t) - log p_now(v | x_<t))        in nats

Both models read the same tokens, which either a person wrote or the start sampled. The sum goes over the whole vocabulary, so nothing is
estimated: one token shows a change of every word that might have stood there, where perplexity shows that of one word, and accuracy only
what changes an answer. Compare `etude.evaluation.divergence`: the same direction, of whole answers on the practised task, estimated from
log-probs of sampled tokens alone.

Computed in float32 whatever the precision of training: half precision shifts logits as much as a short practice does. Identity: exactly 0
for the start itself. Cost: one forward pass of each model; memory: two times `batch_tokens` rows of logits.

Shapes: M distinct predicting positions of a batch, N tokens that are predicted, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from etude.engine.completion import Tokens
from etude.errors import UserError
from etude.learn.batches import MicroBatch, can_share_prefixes, pack
from etude.learn.example import Example
from etude.models.heads import head_on_positions

Pieces = Sequence[tuple[Tokens, Tokens]]
"""What is read, and what is predicted after it."""
_ROWS = 16
"""Rows of logits that are compared together, so that they stay in the processor's cache."""


@torch.no_grad()
def token_divergence(start: Any, now: Any, pieces: Pieces, *, batch_tokens: int = 512) -> list[list[float]]:
    """Return KL(start || now) at every predicted token of each piece.

    Raises UserError for models whose vocabularies differ in size.
    """
    shares_prefixes = can_share_prefixes(start.config) and can_share_prefixes(now.config)
    device = next(start.parameters()).device
    found: list[list[float]] = [[] for _ in pieces]
    start.eval(), now.eval()
    for batch in pack([Example(*piece) for piece in pieces], batch_tokens=batch_tokens, shares_prefixes=shares_prefixes):
        batch = batch.to(device)
        values_M = torch.cat([*_divergences(_logits(start, batch), _logits(now, batch))])
        for piece, value in zip(batch.example_N.tolist(), values_M[batch.triple_N].tolist(), strict=True):
            found[piece].append(value)
    return found


def _logits(model: Any, batch: MicroBatch) -> torch.Tensor:
    with head_on_positions(model, batch.sources_M):
        read = {"input_ids": batch.tokens_BT, "attention_mask": batch.attention_mask(), "position_ids": batch.positions_BT}
        return model(**read, use_cache=False).logits


def _divergences(start_MV: torch.Tensor, now_MV: torch.Tensor) -> Iterator[torch.Tensor]:
    if start_MV.shape[-1] != now_MV.shape[-1]:
        sizes = f"{start_MV.shape[-1]} and {now_MV.shape[-1]} tokens"
        raise UserError(
            f"the start and the model have vocabularies of {sizes}: only models of one tokenizer can be compared token by token"
        )
    for start, now in zip(start_MV.split(_ROWS), now_MV.split(_ROWS), strict=True):
        before, after = start.float().log_softmax(-1), now.float().log_softmax(-1)
        yield (before.exp() * (before - after)).sum(-1)
