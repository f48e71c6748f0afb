"""The layer of transformers' cache that follows a policy, and what it is told of the forward pass.

transformers gives a layer new keys and values (`update`), and then calls the attention function with the queries, which calls `attend`: the
queries read, and what is new is stored. While a prompt is computed rows are read one at a time, without their padding; while one token a
row is generated, all at once.

The length that the layer reports is the number of tokens seen, so that positions stay what they would be; the layer does its own masking.

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
    """The forward pass that a layer is part of."""

    rotation: Rotation
    pending: "PolicyCacheLayer | None"
    """The layer that has new keys and waits for their queries."""
    is_real_BQ: np.ndarray
    """Whether a new token is real, not padding."""
    turned_BQ: np.ndarray
    """The position that it is rotated to."""

    is_replaying: bool
    """Whether the tokens are read for their attention alone, and are not kept (KVzip)."""
    modules: dict[int, Any]
    """The attention module of each layer, by its number."""
    scales: dict[int, float]
    """Factor of the products of its queries and keys."""

    def check_open(self) -> None: ...


def split_layers(layers: Iterable[Any]) -> tuple[list[Any], list[Any]]:
    """Return those layers of a cache that are under a policy, and the others, which are transformers' own (windows, states)."""
    ours, others = list[Any](), list[Any]()
    for layer in layers:
        (ours if isinstance(layer, PolicyCacheLayer) else others).append(layer)
    return ours, others


def held_bytes(layers: Iterable[Any]) -> int:
    """Return the bytes that are allocated for the layers under a policy; of what is streamed, those of one layer."""
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
    """The `number`th of so many full-attention layers of a model."""

    is_sliding = False
    is_croppable = True
    can_be_saved = False
    """Whether `etude.kv_cache.cache_io` knows how to write it."""
    supports_early_init = False

    def __init__(self, forward: Forward, number: int, layers: int, sparse: SparsePrefill | None = None) -> None:
        super().__init__()
        self.sparse = sparse
        self.forward, self.number, self.layers = forward, number, layers
        self.width = 0
        """Tokens so far, padding and evicted ones included."""
        self.seen_B = np.zeros(0, dtype=np.int64)
        """Tokens of each row so far, without padding."""
        self.streamed_bytes = 0
        """Bytes beside `bytes` that were allocated while the last token was read, and released since (streaming)."""

    def __copy__(self) -> Self:
        """Return a copy of which other rows can be selected: what holds them is copied too."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in self.holds_rows:
            setattr(other, name, copy.copy(getattr(self, name)))
        return other

    # ------------------------------------------------------------------ what a kind of layer does

    holds_rows: ClassVar[tuple[str, ...]] = ()
    """Attributes with state by row, which `select` changes in place."""

    @abstractmethod
    def read(self, row: int, new: New) -> torch.Tensor:
        """Keep a row's new tokens of a prompt, none or more, and return what their queries read, [N, Q, D]. Rows come in order."""

    @abstractmethod
    def finish(self) -> None:
        """End a prompt, all rows of which were read."""

    @abstractmethod
    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        """Keep a new token of each row where it is real, and return what the queries read, [B, N, D]."""

    @property
    def generates_prompts(self) -> bool:
        """Whether the tokens of a later prompt are kept and read one by one."""
        return False

    @abstractmethod
    def select(self, rows: list[int]) -> None:
        """Go on with these rows, repeats allowed."""

    @abstractmethod
    def take_back(self, tokens: int) -> None:
        """Forget the last tokens of every row."""

    @abstractmethod
    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        """Take over what a layer of a full cache held; what is over budget is evicted with the next tokens."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Bytes that are allocated for the layer where the model computes."""

    @classmethod
    def token_attend(cls, layers: Sequence[Any]) -> "LayerwiseStep":
        """Return the attention of a decoding step over these layers, all of this class: by one kernel for all, or layer by layer."""
        return LayerwiseStep(layers)

    # ------------------------------------------------------------------ what an evaluation asks

    pool: Any = None
    """The pages near the model, of a layer that offloads others."""

    @property
    @abstractmethod
    def held_tokens_B(self) -> np.ndarray:
        """Tokens that each row holds where the model computes, on average over heads, without those that are streamed."""

    @property
    def streamed_tokens_B(self) -> np.ndarray:
        """Tokens that each row holds while this layer computes, and no longer."""
        return np.zeros(len(self.seen_B))

    @abstractmethod
    def shares_HT(self, row: int, tokens: int) -> np.ndarray:
        """Return what each head has of a row's first tokens: 1 where one is kept; under retrieval how much of its page was read, on average
        over the tokens that were generated so far.
        """

    # ------------------------------------------------------------------ what transformers asks

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.seen_B, self.is_initialized = np.zeros(len(key_states), dtype=np.int64), True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Take new keys and values for the queries that come next, and return them as they are."""
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
        """Return the size of a mask that nobody reads: of the new tokens alone, so that it stays small."""
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
        """Take so many last tokens (a number below 0) back. What was dropped for them stays away: a cache is as it was before only where
        nothing was, otherwise go on with a copy that was made before.
        """
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes a number below 0, the tokens to take back, got {tokens_to_remove}")
        if tokens_to_remove and self.width:
            self.take_back(-tokens_to_remove)

    # ------------------------------------------------------------------ what the attention function asks

    def causal(self, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor) -> torch.Tensor:
        """Attend from the last Q of T tokens, each to itself and all before it, or to the blocks that are chosen: [R, Q, D]."""
        if self.sparse and len(keys_TD) >= self.sparse.from_tokens and queries_RQD.shape[1] > 1:
            return self.sparse.causal(queries_RQD, keys_TD, values_TD, self.scale)
        return attention.causal(queries_RQD, keys_TD, values_TD, self.scale)

    @property
    def scale(self) -> float:
        return self.forward.scales[self.number]

    def attend(self, queries_BNQD: torch.Tensor) -> torch.Tensor:
        """Keep the new tokens and return what their queries read, [B, Q, N, D]; 0 at padding."""
        is_real_BQ, is_replaying = self.forward.is_real_BQ, self.forward.is_replaying
        assert self.keys is not None and self.values is not None
        rows, heads, length = queries_BNQD.shape[:3]
        if self.width and not is_replaying and (length == 1 or self.generates_prompts):
            tokens, read = zip(self.keys.split(1, 2), self.values.split(1, 2), strict=True), []
            for place, (self.keys, self.values) in enumerate(tokens):
                read.append(self.generate(queries_BNQD[:, :, place], is_real_BQ[:, place]))
            read_BQND = torch.stack(read, 1)
        else:
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
        """Keep a new token of every row and return what its queries read, [B, N, D]; for a forward pass that leaves attention to others."""
        self.forward.check_open()
        self.keys, self.values, self.forward.scales[self.number] = keys_BHD[:, :, None], values_BHD[:, :, None], scale
        read_BND = self.generate(queries_BND, np.ones(len(queries_BND), bool))
        self.width += 1
        self.keys = self.values = None
        return read_BND


def places(is_real_Q: np.ndarray) -> slice | torch.Tensor:
    """Return where real tokens are, as a slice where they are adjacent."""
    found = np.flatnonzero(is_real_Q)
    if len(found) and found[-1] - found[0] + 1 == len(found):
        return slice(int(found[0]), int(found[-1]) + 1)
    return torch.from_numpy(found)
