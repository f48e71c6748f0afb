"""KVzip's context reconstruction: the model reads the prompt a second time, after the first, and then all layers evict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache

from etude.errors import UserError
from etude.kv_cache.cache_layer import split_layers
from etude.kv_cache.evicting_layer import Evicting, EvictingCacheLayer
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Reconstruction
from etude.kv_cache.slots import Segment


@dataclass(frozen=True)
class Prompt:
    """A prompt after its first pass."""

    tokens_BQ: torch.Tensor
    is_real_BQ: np.ndarray
    turned_BQ: np.ndarray
    """Positions."""
    cache: Cache


@torch.no_grad()
def reconstruct(decoder: Any, cache_name: str, prompt: Prompt, how: Reconstruction) -> None:
    """Read each row's tokens again in chunks, at the positions after its last token. Rows without further tokens are padded.

    Layers of another kind (windows, states) read each chunk like a later turn, and are then restored. Raises UserError if there are such
    layers and rows are or were padded, since they would read padding.
    """
    # refuse padded rows for layers of another kind
    ours, others = split_layers(prompt.cache.layers)
    is_padded = bool((ours[0].seen_B != ours[0].width).any())
    if others and is_padded:
        raise UserError(
            f"a replay of a padded batch can't be read by the model's {type(others[0]).__name__}: give rows of one length, or take a score "
            "that needs none"
        )
    device, seen = prompt.tokens_BQ.device, prompt.cache.get_seq_length()
    rows = [
        tokens_Q[torch.from_numpy(is_real_Q).to(device)] for tokens_Q, is_real_Q in zip(prompt.tokens_BQ, prompt.is_real_BQ, strict=True)
    ]
    next_B1 = torch.from_numpy(prompt.turned_BQ.max(1, keepdims=True) + 1).to(device)
    ask = torch.tensor(how.ask, dtype=prompt.tokens_BQ.dtype, device=device)
    # read the chunks
    for first in range(0, max(map(len, rows)), how.chunk_tokens):
        chunks = [row[first : first + how.chunk_tokens] for row in rows]
        asked = [torch.cat([ask, chunk]) if len(chunk) else chunk for chunk in chunks]
        tokens_BQ = pad_sequence(asked, batch_first=True, padding_side="left")
        is_real_BQ = pad_sequence([torch.ones_like(row) for row in asked], batch_first=True, padding_side="left")
        held = [{name: _copied(state) for name, state in vars(layer).items()} for layer in others]
        try:
            decoder(
                input_ids=tokens_BQ,
                attention_mask=torch.cat([is_real_BQ.new_ones(len(rows), seen), is_real_BQ], 1) if is_padded else None,
                position_ids=next_B1 + (is_real_BQ.cumsum(1) - 1).clamp(min=0),
                use_cache=True,
                **{cache_name: prompt.cache},
            )
        finally:
            for layer, states in zip(others, held, strict=True):
                vars(layer).update(states)


def _copied(state: Any) -> Any:
    """Copy a state with its tensors, since layers write into them."""
    if isinstance(state, dict):
        return {name: _copied(part) for name, part in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(_copied, state))
    return state.clone() if isinstance(state, torch.Tensor) else state


@torch.no_grad()
def evict_prompt(cache: Cache) -> None:
    """Evict a prompt's tokens over budget, over all layers or in each."""
    layers: list[EvictingCacheLayer] = split_layers(cache.layers)[0]
    policy = layers[0].policy
    rows = [evict_row(layers, row, policy, score_inputs_of(layers, row, policy)) for row in range(len(layers[0].seen_B))]
    for layer, rows_of_layer in zip(layers, zip(*rows, strict=True), strict=True):
        layer.slots = layer.in_slots(rows_of_layer)


def evict_row(layers: Sequence[EvictingCacheLayer], row: int, policy: Evicting, inputs: Sequence[ScoreInputs]) -> list[list[Segment]]:
    """Return the segments of a row that a policy keeps, by layer and head."""
    found = policy.kept(inputs) if policy.layers == "all" else [policy.kept([held])[0] for held in inputs]
    segments = [layer.slots.row(row) for layer in layers if layer.slots]
    return [[part.at(index_K) for part, index_K in zip(*each, strict=True)] for each in zip(segments, found, strict=True)]


def score_inputs_of(layers: Sequence[EvictingCacheLayer], row: int, policy: Evicting) -> list[ScoreInputs]:
    """Return the inputs of a policy's score for a row, by layer."""
    segments = [layer.slots.row(row) for layer in layers if layer.slots]
    return [
        layer.score_inputs(row, own, policy.budget(int(layer.seen_B[row]), layer.number, layer.layers), policy)
        for layer, own in zip(layers, segments, strict=True)
    ]
