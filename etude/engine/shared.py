"""Prompts whose keys and values are held once for all rows that continue them, with torch operations.

Attention over the prompt and over a row's generated tokens are two products, joined by their normalisers (`etude.engine.attention`). This
is simpler and slower than the kernels of `etude.engine.blocks`. Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.engine.attention import Attend, RowLayout, attend_causal, attend_own, attend_prompts, merge_attention
from etude.engine.prefill import PackedPrompts, compute_prompts
from etude.engine.protocols import Forward

_SHARE_FROM = 2
"""Mean number of rows for each prompt from which sharing the prompt is faster (SmolLM2-135M, 2 cores)."""


class _LayerStores:
    """Keys and values [B, K, T, D] of every layer, in preallocated stores with room for more rows and positions."""

    def __init__(self, rows: int, capacity: int, dtype: torch.dtype | None = None) -> None:
        """Prepare stores. `dtype`: their precision; None: that of the keys and values."""
        self.rows, self.capacity, self.dtype = rows, capacity, dtype
        self.stores: list[tuple[torch.Tensor, torch.Tensor]] = []

    def write(self, layer: int, rows: Any, positions: Any, keys: torch.Tensor, values: torch.Tensor) -> None:
        if layer == len(self.stores):
            self.stores.append((self._store_like(keys), self._store_like(values)))
        for store, states in zip(self.stores[layer], (keys, values), strict=True):
            store[rows, :, positions] = states

    def filled(self, layer: int, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.stores[layer]
        return keys[:rows, :, :length], values[:rows, :, :length]

    def keep(self, rows_B: torch.Tensor, length: int) -> None:
        """Move the first `length` positions of these rows to the first rows."""
        for store in (store for pair in self.stores for store in pair):
            store[: len(rows_B), :, :length] = store[rows_B, :, :length]

    def copy(self, rows_B: torch.Tensor, start: int, *, rows: int, capacity: int) -> "_LayerStores":
        """Copy the positions of these rows from `start` to the end into stores of another size."""
        copied, length = _LayerStores(rows, capacity, self.dtype), self.capacity - start
        for pair in self.stores:
            keys, values = (copied._store_like(store) for store in pair)
            keys[: len(rows_B), :, :length], values[: len(rows_B), :, :length] = (store[rows_B, :, start:] for store in pair)
            copied.stores.append((keys, values))
        return copied

    def _store_like(self, states: torch.Tensor) -> torch.Tensor:
        shape = (self.rows, states.shape[1], self.capacity, states.shape[-1])
        return states.new_zeros(shape, dtype=self.dtype)  # zeros, since masked positions must hold finite numbers


@dataclass
class SharedPrompts:
    """Keys and values of prompts, padded on the left."""

    forward: Forward
    layers: _LayerStores
    length_P: torch.Tensor

    @staticmethod
    def prefill(forward: Forward, prompts: Sequence[Sequence[int]]) -> tuple["SharedPrompts", torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them."""
        length_P = torch.tensor([len(prompt) for prompt in prompts])
        longest = int(length_P.max())
        layers = _LayerStores(len(prompts), longest)

        def attend_of(part: PackedPrompts) -> Attend:
            place_N = part.position_N + longest - length_P[part.prompt_N]

            def attend(layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
                layers.write(layer, part.prompt_N, place_N, keys, values)
                return attend_causal(queries, keys, values, part.lengths, scale)

            return attend

        logits_PV = compute_prompts(forward, prompts, attend_of)
        return SharedPrompts(forward, layers, length_P), logits_PV

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> "SharedContext":
        """Create rows that continue these prompts. With few samples for each prompt, rows get copies of it, which is faster."""
        longest, rows = int(self.length_P[rows_B].max()), max(samples, len(rows_B))
        skipped = self.layers.capacity - longest
        if samples < _SHARE_FROM * len(rows_B):
            own = self.layers.copy(rows_B, skipped, rows=rows, capacity=longest + room_tokens)
            return SharedContext(self.forward, None, rows_B, self.length_P[rows_B], own, longest)
        used = self
        if 2 * len(rows_B) <= len(self.length_P):
            used, rows_B = self.only(rows_B), torch.arange(len(rows_B))
        own = _LayerStores(rows, room_tokens, torch.float32)  # few; without AMX float32 is faster than bfloat16
        return SharedContext(used.forward, used, rows_B, used.length_P[rows_B], own, 0)

    def only(self, prompts: torch.Tensor) -> "SharedPrompts":
        """Copy these prompts, by number."""
        length_P = self.length_P[prompts]
        longest = int(length_P.max())
        layers = self.layers.copy(prompts, self.layers.capacity - longest, rows=len(prompts), capacity=longest)
        return SharedPrompts(self.forward, layers, length_P)

    def bias_P11T(self, dtype: torch.dtype) -> torch.Tensor | None:
        return _bias(self.length_P, self.layers.capacity, 0, dtype)


class SharedContext:
    """Rows that share their prompt's keys and values, and hold those of generated tokens. With `prompts` None, rows hold all of theirs."""

    copies = True

    def __init__(
        self,
        forward: Forward,
        prompts: SharedPrompts | None,
        prompt_B: torch.Tensor,
        length_B: torch.Tensor,
        own: _LayerStores,
        filled: int,
    ) -> None:
        """Create rows. `prompt_B`: the prompt of each, ascending; `length_B`: tokens of each; `filled`: positions used in `own`."""
        self.forward, self.prompts, self.prompt_B, self.length_B, self.own, self.filled = forward, prompts, prompt_B, length_B, own, filled
        self._own_starts_at = filled
        """The first generated position of `own`; earlier ones hold the prompt, padded on the left."""
        self._arrange()

    def __len__(self) -> int:
        return len(self.prompt_B)

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Keep only these rows: at most as many as the samples of `begin`, which allocated room for all of their tokens."""
        self.own.keep(rows_B, self.filled)
        self.prompt_B, self.length_B = self.prompt_B[rows_B], self.length_B[rows_B]
        if self.prompts:
            used, numbers_B = self.prompt_B.unique(return_inverse=True)
            if 2 * len(used) <= len(self.prompts.length_P):  # unused prompts still cost time
                self.prompts, self.prompt_B = self.prompts.only(used), numbers_B
        self._arrange()

    def _arrange(self) -> None:
        """Rebuild the layout of the current rows by prompt, and the biases of padding."""
        dtype, prompts = next(self.forward.model.parameters()).dtype, self.prompts
        self._rows_B = torch.arange(len(self.prompt_B))
        self._places = RowLayout.of(self.prompt_B, len(prompts.length_P)) if prompts else None
        self._prompt_bias = prompts.bias_P11T(dtype) if prompts else None
        drawn = self.filled - self._own_starts_at
        more = self.own.capacity - self._own_starts_at
        self._own_bias = None if prompts else _bias(self.length_B - drawn, self._own_starts_at, more, dtype)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        logits_BV = self.forward.logits(tokens_B, self.length_B, self._attend, self._rows_B)
        self.length_B, self.filled = self.length_B + 1, self.filled + 1
        return logits_BV

    def _attend(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        rows, end = len(self), self.filled + 1
        self.own.write(layer, slice(rows), self.filled, keys, values)
        own_keys, own_values = self.own.filled(layer, rows, end)
        bias = None if self._own_bias is None else self._own_bias[..., :end]
        own = attend_own(queries.to(own_keys.dtype), own_keys, own_values, bias, scale)
        if self.prompts is None or self._places is None:
            return own[0]
        shared = attend_prompts(queries, *self.prompts.layers.stores[layer], self._prompt_bias, self._places, scale)
        return merge_attention(own, shared).to(queries.dtype)


def _bias(length_B: torch.Tensor, width: int, more: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Return a bias [B, 1, 1, width + more] of scores, -inf at the left padding of `width` positions; None without padding."""
    if bool((length_B == width).all()):
        return None
    is_padding = torch.arange(width + more) < (width - length_B)[:, None]
    return torch.zeros(is_padding.shape, dtype=dtype).masked_fill(is_padding, -torch.inf)[:, None, None]
