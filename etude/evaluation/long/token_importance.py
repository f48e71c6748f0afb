"""Leave-one-out importance of a context's tokens: the loss of the answer's log-prob without a token's keys and values.

    worth_j = log p(answer | context) - log p(answer | context without j), in nats

A token is evicted from the cache in all layers and heads after the context was read, so its influence on other tokens remains. Cost: a
forward pass of the tokens after the context for every context token, so it suits contexts of a few hundred tokens.

Shapes: T tokens of the context, A of the answer.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from etude.engine.cache import cache_argument
from etude.models.adapters import base_of


@torch.inference_mode()
def token_importance(
    model: Any, text: Sequence[int], question: Sequence[int], answer: Sequence[int], *, is_seen: bool, batch_rows: int = 32
) -> tuple[float, torch.Tensor]:
    """Return the answer's log-prob under the full context, and the importance [T] of each token of the text.

    `is_seen`: whether the question reads the whole text too, so that only the answer lacks a token; its first token then lacks none.
    """
    before, between = ([*text, *question], []) if is_seen else (list(text), list(question))
    after, device = [*between, *answer[:-1]], next(model.parameters()).device
    cache, name = DynamicCache(config=base_of(model).config.get_text_config()), cache_argument(base_of(model))
    first_1V = model(torch.tensor([before], device=device), logits_to_keep=1, **{name: cache}).logits[:, -1]
    targets_A = torch.tensor(list(answer), device=device)
    if not after:
        return float(first_1V[0].float().log_softmax(-1)[targets_A[0]]), torch.zeros(len(text))

    def likelihoods(left_out: Sequence[int | None]) -> torch.Tensor:
        rows = len(left_out)
        own = copy.deepcopy(cache)
        own.batch_repeat_interleave(rows)
        mask = torch.ones(rows, len(before) + len(after), dtype=torch.long, device=device)
        for row, place in enumerate(left_out):
            if place is not None:
                mask[row, place] = 0
        position = torch.arange(len(before), len(before) + len(after), device=device).expand(rows, -1)
        kept = len(answer) if between else len(answer) - 1
        logits = model(
            torch.tensor([after] * rows, device=device), attention_mask=mask, position_ids=position, logits_to_keep=kept, **{name: own}
        ).logits
        if not between:
            logits = torch.cat([first_1V[:, None].expand(rows, -1, -1), logits], 1)
        return logits.float().log_softmax(-1).gather(-1, targets_A.expand(rows, -1)[:, :, None])[:, :, 0].double().sum(-1).cpu()

    (full,) = likelihoods([None]).tolist()
    places = range(len(text))
    without = [likelihoods(places[start : start + batch_rows]) for start in range(0, len(text), batch_rows)]
    return full, full - torch.cat(without)
