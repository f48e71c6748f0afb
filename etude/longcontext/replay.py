"""A prompt is given to the model once more, behind itself, before anything of it is dropped; then all layers drop at once."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache

from etude.errors import UserError
from etude.longcontext.scores.replayed import Replayed
from etude.longcontext.slot_layer import SlotLayer
from etude.longcontext.slots import Segment, Slots


@dataclass(frozen=True)
class Prompt:
    """What was read."""

    tokens_BQ: torch.Tensor
    is_real_BQ: np.ndarray
    turned_BQ: np.ndarray
    """Positions."""
    cache: Cache


@torch.no_grad()
def replay(decoder: Any, cache_name: str, prompt: Prompt, score: Replayed) -> None:
    """Each row's tokens in chunks, at the positions behind its last one. A row that has no more is padding."""
    other = next((type(layer).__name__ for layer in prompt.cache.layers if not isinstance(layer, SlotLayer)), None)
    if other:
        raise UserError(f"a replay would leave its tokens in the model's {other}: take a score that needs none")
    device, seen = prompt.tokens_BQ.device, prompt.cache.get_seq_length()
    rows = [
        tokens_Q[torch.from_numpy(is_real_Q).to(device)] for tokens_Q, is_real_Q in zip(prompt.tokens_BQ, prompt.is_real_BQ, strict=True)
    ]
    next_B1 = torch.from_numpy(prompt.turned_BQ.max(1, keepdims=True) + 1).to(device)
    ask = torch.tensor(score.ask, dtype=prompt.tokens_BQ.dtype, device=device)
    for first in range(0, max(map(len, rows)), score.chunk_tokens):
        chunks = [row[first : first + score.chunk_tokens] for row in rows]
        asked = [torch.cat([ask, chunk]) if len(chunk) else chunk for chunk in chunks]
        tokens_BQ = pad_sequence(asked, batch_first=True, padding_side="left")
        is_real_BQ = pad_sequence([torch.ones_like(row) for row in asked], batch_first=True, padding_side="left")
        decoder(
            input_ids=tokens_BQ,
            attention_mask=torch.cat([is_real_BQ.new_ones(len(rows), seen), is_real_BQ], 1),
            position_ids=next_B1 + (is_real_BQ.cumsum(1) - 1).clamp(min=0),
            use_cache=True,
            **{cache_name: prompt.cache},
        )


@torch.no_grad()
def cut(cache: Cache) -> None:
    """Drop what is too much, over all layers or in each."""
    layers = [layer for layer in cache.layers if isinstance(layer, SlotLayer) and layer.slots]
    policy, rows = layers[0].policy, layers[0].seen_B
    kept: list[list[list[Segment]]] = [[] for _ in layers]
    for row, seen in enumerate(rows.tolist()):
        budgets = [policy.budget(seen, layer.number, layer.layers) for layer in layers]
        segments = [layer.slots.row(row) for layer in layers if layer.slots]
        helds = [layer.held(row, own, budget) for layer, own, budget in zip(layers, segments, budgets, strict=True)]
        found = policy.kept(helds) if policy.layers == "all" else [policy.kept([held])[0] for held in helds]
        for number, (own, chosen) in enumerate(zip(segments, found, strict=True)):
            kept[number].append([segment.at(index_K) for segment, index_K in zip(own, chosen, strict=True)])
    for layer, rows_of_layer in zip(layers, kept, strict=True):
        layer.slots = Slots(rows_of_layer)
