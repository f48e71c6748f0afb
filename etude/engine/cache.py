"""A KV cache for decoding that writes in place instead of concatenating at every step.

`preallocated_cache` is transformers' own cache with plain full-attention layers replaced by `PreallocatedLayer`. Other kinds of layer
(sliding windows, linear attention) stay transformers' own, so that every architecture works.
"""

import copy
import functools
import inspect
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

from etude.errors import UserError

_GROWTH_TOKENS = 64


class PreallocatedLayer(DynamicLayer):
    """A full-attention cache layer with spare capacity; keys and values are views of the filled part, shape [B, H, T, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.room_tokens = 0
        """Positions to allocate beyond the first prefill."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_store, self.value_store = key_states, value_states
            self.filled = 0
        end = self.filled + key_states.shape[-2]
        if end > self.key_store.shape[-2]:
            self._reserve(max(end + _GROWTH_TOKENS, self.filled + self.room_tokens))
        if self.key_store is not key_states:
            self.key_store[:, :, self.filled : end] = key_states
            self.value_store[:, :, self.filled : end] = value_states
        self.filled = end
        self.keys, self.values = self.key_store[:, :, :end], self.value_store[:, :, :end]
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Keep the rows `beam_idx` (repeats allowed), with room for `room_tokens` more positions."""
        self._reserve(self.filled + self.room_tokens, beam_idx)

    def _reserve(self, capacity: int, rows: torch.Tensor | None = None) -> None:
        old_keys, old_values = self.key_store[:, :, : self.filled], self.value_store[:, :, : self.filled]
        batch, heads, _, width = old_keys.shape
        count = batch if rows is None else len(rows)
        self.key_store = old_keys.new_empty(count, heads, capacity, width)
        self.value_store = old_values.new_empty(count, heads, capacity, old_values.shape[-1])
        self.key_store[:, :, : self.filled] = old_keys if rows is None else old_keys[rows]
        self.value_store[:, :, : self.filled] = old_values if rows is None else old_values[rows]
        self.keys, self.values = self.key_store[:, :, : self.filled], self.value_store[:, :, : self.filled]


def cache_argument(model: Any) -> str:
    """Return the name of the cache argument of the model's `forward`: `cache` since transformers 5.24, before that it depended on the
    architecture.

    Raises UserError for a model without one.
    """
    return _cache_argument(model.__class__)


@functools.cache
def _cache_argument(kind: Any) -> str:
    """Find `cache_argument` once for every architecture, since it is used at every token."""
    taken = inspect.signature(kind.forward).parameters
    for name in ("cache", "past_key_values", "cache_params"):
        if name in taken:
            return name
    raise UserError(f"{kind.__name__} takes no cache, so it can't be sampled from here: take a causal language model that does")


def attends(cache: Cache) -> bool:
    """Tell whether a layer attends to earlier positions. If none does (state-space models), a mask covers only the new tokens."""
    return any(type(layer) is not LinearAttentionLayer for layer in cache.layers)


def preallocated_cache(config: PreTrainedConfig) -> Cache:
    """Create an empty cache for a model of this configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if cache.layer_class_to_replicate is DynamicLayer:
        cache.layer_class_to_replicate = PreallocatedLayer
    return cache


def _copy_of(layer: Any) -> Any:
    """Copy a layer and its dictionaries, since reordering writes into those of linear-attention layers."""
    copied = copy.copy(layer)
    for name, value in vars(copied).items():
        if isinstance(value, dict):
            setattr(copied, name, dict(value))
    return copied


def select_rows(cache: Cache, rows: torch.Tensor, room_tokens: int) -> Cache:
    """Return a new cache of these rows (repeats allowed) with room for `room_tokens` more positions; the source is unchanged."""
    chosen = copy.copy(cache)
    chosen.layers = [_copy_of(layer) for layer in cache.layers]
    for layer in chosen.layers:
        if hasattr(layer, "room_tokens"):  # preallocated layers, and those of KV cache policies
            layer.room_tokens = room_tokens
        layer.reorder_cache(rows)  # type: ignore[arg-type]  # annotated LongTensor, a class that no tensor is an instance of
    return chosen
