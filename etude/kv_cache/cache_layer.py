"""The layer of transformers' cache that follows a policy, and its interface to the forward pass.

transformers passes new keys and values to a layer (`update`), and then calls the attention function with the queries, which calls `attend`:
it computes the attention and stores the new tokens. Prompts are computed one row at a time, without padding; generated tokens are computed
for all rows at once.

The layer reports the number of tokens seen as its length, so that positions do not change, and does its own masking.

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, D width.
"""

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import torch
from transformers.cache_utils import CacheLayerMixin

from etude.errors import UserError
from etude.kv_cache import attention
from etude.kv_cache.rotation import Rotation
from etude.kv_cache.sparse_prefill import SparsePrefill

NO_SEAM = (
    "this model's attention does not go through transformers' attention functions, so what it reads can't be chosen: take a model that "
    "supports attn_implementation='sdpa'"
)


class Forward(Protocol):
    """The forward pass of a layer."""

    rotation: Rotation
    pending: "PolicyCacheLayer | None"
    """The layer that has received new keys and waits for their queries."""
    is_real_BQ: np.ndarray
    """Whether each new token is real, not padding."""
    turned_BQ: np.ndarray
    """The position of each new token's rotation."""

    is_replaying: bool
    """Whether tokens are computed only for their attention, and are not kept (KVzip)."""
    modules: dict[int, Any]
    """The attention module of each layer, by its number."""
    scales: dict[int, float]
    """The scale of each layer's attention scores."""

    def check_open(self) -> None: ...


def split_layers(layers: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Split the layers of a cache into those under a policy and transformers' own (windows, states)."""
    ours, others = list[Any](), list[Any]()
    for layer in layers:
        (ours if isinstance(layer, PolicyCacheLayer) else others).append(layer)
    return ours, others


def held_bytes(layers: Iterable[Any]) -> int:
    """Return the bytes allocated for the layers under a policy; streamed pages count for one layer."""
    ours, _ = split_layers(layers)
    return sum(layer.bytes for layer in ours) + max((layer.streamed_bytes for layer in ours), default=0)


@dataclass(frozen=True)
class New:
    """New tokens of one row, without padding."""

    queries_NQD: torch.Tensor
    keys_HQD: torch.Tensor
    values_HQD: torch.Tensor

    def __len__(self) -> int:
        return self.queries_NQD.shape[1]

    @property
    def queries_HRQD(self) -> torch.Tensor:
        return self.queries_NQD.unflatten(0, (len(self.keys_HQD), -1))


@dataclass(frozen=True)
class LayerwiseStep:
    """The engine's `Attend` of a decoding step, one new token in every row: each layer computes its own attention."""

    layers: Sequence[Any]

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        read_BND: torch.Tensor = self.layers[layer].step(queries, keys, values, scale)
        return read_BND


class PolicyCacheLayer(CacheLayerMixin):
    """A full-attention layer under a policy: `number` of `layers` in the model."""

    is_sliding = False
    is_croppable = True
    can_be_saved = False
    """Whether `etude.kv_cache.cache_io` can save it."""
    supports_early_init = False

    def __init__(self, forward: Forward, number: int, layers: int, sparse: SparsePrefill | None = None) -> None:
        super().__init__()
        self.sparse = sparse
        self.forward, self.number, self.layers = forward, number, layers
        self.width = 0
        """Tokens so far, including padding and evicted ones."""
        self.seen_B = np.zeros(0, dtype=np.int64)
        """Tokens of each row so far, without padding."""
        self.streamed_bytes = 0
        """Bytes in addition to `bytes` that were allocated only during the last token (streaming)."""

    def __copy__(self) -> Self:
        """Copy the layer and its state by row, so that other rows can be selected in the copy."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in self.holds_rows:
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    # ------------------------------------------------------------------ implemented by each kind of layer

    holds_rows: ClassVar[tuple[str, ...]] = ()
    """Attributes with state by row, which `select` changes in place."""

    @abstractmethod
    def read(self, row: int, new: New) -> torch.Tensor:
        """Store a row's new prompt tokens, possibly none, and return their attention output [N, Q, D]. Rows are passed in order."""

    @abstractmethod
    def finish(self) -> None:
        """End a prompt after all of its rows were read."""

    @abstractmethod
    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        """Store a new token of each row where it is real, and return the attention output [B, N, D]."""

    @property
    def generates_prompts(self) -> bool:
        """Whether the tokens of a later prompt are processed one by one."""
        return False

    @abstractmethod
    def select(self, rows: list[int]) -> None:
        """Keep only these rows, repeats allowed."""

    @abstractmethod
    def take_back(self, tokens: int) -> None:
        """Remove the last tokens of every row (rollback)."""

    @abstractmethod
    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        """Take over the content of a full cache's layer; tokens over budget are evicted with the next tokens."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes allocated for the layer on the model's device."""

    @classmethod
    def token_attend(cls, layers: Sequence[Any]) -> "LayerwiseStep":
        """Return the attention of a decoding step over these layers of this class, by one kernel for all or layer by layer."""
        return LayerwiseStep(layers)

    # ------------------------------------------------------------------ used by evaluations

    pool: Any = None
    """The pages on the model's device, of a layer that offloads others."""

    @property
    @abstractmethod
    def held_tokens_B(self) -> np.ndarray:
        """Tokens of each row on the model's device, averaged over heads, without streamed ones."""

    @property
    def streamed_tokens_B(self) -> np.ndarray:
        """Tokens that each row holds only while this layer computes."""
        return np.zeros(len(self.seen_B))

    @abstractmethod
    def shares_HT(self, row: int, tokens: int) -> np.ndarray:
        """Return the share of a row's first tokens that each head has: 1 for a kept token; under retrieval the share of its page that was
        read, averaged over the tokens generated so far.
        """

    # ------------------------------------------------------------------ called by transformers

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.seen_B, self.is_initialized = np.zeros(len(key_states), dtype=np.int64), True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new keys and values for the next call of the attention function, and return them unchanged."""
        self.forward.check_open()
        if self.forward.pending:
            raise UserError(NO_SEAM)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values, self.forward.pending = key_states.detach(), value_states.detach(), self
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the size of the mask, which is not used: only the new tokens, so that it stays small."""
        return query_length, self.width

    def get_max_length(self) -> int:
        return -1

    def offload(self) -> None:
        raise UserError("a cache with a policy can't be offloaded by transformers: leave offloading out")

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.width:
            rows = beam_idx.tolist()
            self.select(rows)
            self.seen_B = self.seen_B[rows]

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(len(self.seen_B)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.reorder_cache(torch.arange(len(self.seen_B))[indices.cpu()] if self.width else indices)

    def crop(self, tokens_to_remove: int) -> None:
        """Roll back the last tokens; `tokens_to_remove` is negative. Tokens evicted since then are not restored: if there are any, continue
        from an earlier copy instead.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes a number below 0, the tokens to take back, got {tokens_to_remove}")
        if tokens_to_remove and self.width:
            self.take_back(-tokens_to_remove)

    # ------------------------------------------------------------------ called by the attention function

    def causal(self, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor) -> torch.Tensor:
        """Return causal attention [R, Q, D] of the last Q of T tokens, to all earlier tokens or to selected blocks."""
        if self.sparse and len(keys_TD) >= self.sparse.from_tokens and queries_RQD.shape[1] > 1:
            return self.sparse.causal(queries_RQD, keys_TD, values_TD, self.scale)
        return attention.causal(queries_RQD, keys_TD, values_TD, self.scale)

    @property
    def scale(self) -> float:
        return self.forward.scales[self.number]

    def attend(self, queries_BNQD: torch.Tensor) -> torch.Tensor:
        """Store the new tokens and return their attention output [B, Q, N, D]; 0 at padding."""
        is_real_BQ, is_replaying = self.forward.is_real_BQ, self.forward.is_replaying
        assert self.keys is not None and self.values is not None
        rows, heads, length = queries_BNQD.shape[:3]
        if self.width and not is_replaying and (length == 1 or self.generates_prompts):
            # generated tokens: all rows at once
            tokens, read = zip(self.keys.split(1, 2), self.values.split(1, 2), strict=True), []
            for place, (self.keys, self.values) in enumerate(tokens):
                read.append(self.generate(queries_BNQD[:, :, place], is_real_BQ[:, place]))
            read_BQND = torch.stack(read, 1)
        else:
            # a prompt: row by row, without padding
            read_BQND = queries_BNQD.new_zeros(rows, length, heads, self.values.shape[-1])
            for row in range(rows):
                own = places(is_real_BQ[row])
                queries_NQD, keys_HQD, values_HQD = (each[row][:, own] for each in (queries_BNQD, self.keys, self.values))
                read_BQND[row, own] = self.read(row, New(queries_NQD, keys_HQD, values_HQD)).transpose(0, 1)
            if not is_replaying:
                self.finish()
        self.width += 0 if is_replaying else length
        self.keys = self.values = None
        return read_BQND

    def step(self, queries_BND: torch.Tensor, keys_BHD: torch.Tensor, values_BHD: torch.Tensor, scale: float) -> torch.Tensor:
        """Store a new token of every row and return its attention output [B, N, D]; called by a forward pass with an `Attend`."""
        self.forward.check_open()
        self.keys, self.values, self.forward.scales[self.number] = keys_BHD[:, :, None], values_BHD[:, :, None], scale
        read_BND = self.generate(queries_BND, np.ones(len(queries_BND), bool))
        self.width += 1
        self.keys = self.values = None
        return read_BND


def places(is_real_Q: np.ndarray) -> slice | torch.Tensor:
    """Return the indices of real tokens, as a slice if they are adjacent."""
    found = np.flatnonzero(is_real_Q)
    if len(found) and found[-1] - found[0] + 1 == len(found):
        return slice(int(found[0]), int(found[-1]) + 1)
    return torch.from_numpy(found)
