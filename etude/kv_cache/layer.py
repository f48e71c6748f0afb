"""A layer of transformers' cache that has its own way with what it holds.

transformers gives a layer new keys and values, and then the attention function the queries: `update` only takes them, and `attend`, which
the attention function calls, lets the queries read and stores what is new. Rows are read each for itself while a prompt is computed,
without their padding, and together while one token a row is generated.

What the layer says of its length is what it has seen, so that positions stay what they would be; masks are its own affair.

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, D width.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import CacheLayerMixin

from etude.errors import UserError
from etude.kv_cache import attention
from etude.kv_cache.rotation import Rotation
from etude.kv_cache.sparse import Sparse

NO_SEAM = (
    "this model's attention does not go through transformers' attention functions, so what it reads can't be chosen: take a model that "
    "supports attn_implementation='sdpa'"
)


class Forward(Protocol):
    """What a layer is told of the forward pass that it is part of."""

    rotation: Rotation
    pending: "ContextLayer | None"
    """The layer that took keys and waits for the queries."""
    is_real_BQ: np.ndarray
    """Whether a new token is one, not padding."""
    turned_BQ: np.ndarray
    """The position by which it is turned."""

    is_replaying: bool
    """Whether the tokens are read for what they read, and are not kept."""
    modules: dict[int, Any]
    """The attention of each layer, by its number."""
    scales: dict[int, float]
    """Of the products of its queries and keys."""

    def check_open(self) -> None: ...


def held_bytes(layers: Iterable[Any]) -> int:
    """What is allocated for those layers of a cache that are ours, at the most: what passes, in one layer at a time."""
    ours = [layer for layer in layers if isinstance(layer, ContextLayer)]
    return sum(layer.bytes for layer in ours) + max((layer.passing_bytes for layer in ours), default=0)


@dataclass(frozen=True)
class New:
    """Tokens of a row that are read."""

    queries_NQD: torch.Tensor
    keys_HQD: torch.Tensor
    values_HQD: torch.Tensor

    def __len__(self) -> int:
        return self.queries_NQD.shape[1]

    @property
    def queries_HRQD(self) -> torch.Tensor:
        return self.queries_NQD.unflatten(0, (len(self.keys_HQD), -1))


class ContextLayer(CacheLayerMixin):
    """One full-attention layer, the `number`th of so many."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, forward: Forward, number: int, layers: int, sparse: Sparse | None = None) -> None:
        super().__init__()
        self.sparse = sparse
        self.forward, self.number, self.layers = forward, number, layers
        self.width = 0
        """Tokens so far, padding and dropped ones too."""
        self.seen_B = np.zeros(0, dtype=np.int64)
        """Of each row, without padding."""
        self.passing_bytes = 0
        """What was taken beside `bytes` while the last token was read, and was let go of since."""

    # ------------------------------------------------------------------ what a kind of layer does

    @abstractmethod
    def read(self, row: int, new: New) -> torch.Tensor:
        """Keep a row's new tokens of a prompt, none or more: what their queries read, [N, Q, D]. Rows come in order."""

    @abstractmethod
    def finish(self) -> None:
        """All rows of the prompt were read."""

    @abstractmethod
    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        """Keep a new token a row, whose keys and values were taken, where it is real: what the queries read, [B, N, D]."""

    @property
    def generates_prompts(self) -> bool:
        """Whether tokens that come together behind others are kept, and read, one by one."""
        return False

    @abstractmethod
    def select(self, rows: list[int]) -> None:
        """Go on with these rows, repeats allowed."""

    @abstractmethod
    def take_back(self, tokens: int) -> None:
        """Forget the last ones of every row."""

    @abstractmethod
    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        """Hold what a layer of a full cache held; what is too much goes with the next tokens."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """What is allocated for the layer where the model computes."""

    # ------------------------------------------------------------------ what transformers asks

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.seen_B, self.is_initialized = np.zeros(len(key_states), dtype=np.int64), True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Take what is new, for the queries that come next; returned as it is."""
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
        """Of a mask that nobody reads: of the new tokens alone, so that it stays small."""
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
        """What the last Q of T tokens read, each of itself and of all before it, or of the blocks that are chosen: [R, Q, D]."""
        if self.sparse and len(keys_TD) >= self.sparse.from_tokens and queries_RQD.shape[1] > 1:
            return self.sparse.causal(queries_RQD, keys_TD, values_TD, self.scale)
        return attention.causal(queries_RQD, keys_TD, values_TD, self.scale)

    @property
    def scale(self) -> float:
        return self.forward.scales[self.number]

    def attend(self, queries_BNQD: torch.Tensor) -> torch.Tensor:
        """What the queries of the new tokens read, [B, Q, N, D]; padding reads nothing: 0."""
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
        """Keep a new token of every row, by a forward pass that leaves attention to others: what its queries read, [B, N, D]."""
        self.forward.check_open()
        self.keys, self.values, self.forward.scales[self.number] = keys_BHD[:, :, None], values_BHD[:, :, None], scale
        read_BND = self.generate(queries_BND, np.ones(len(queries_BND), bool))
        self.width += 1
        self.keys = self.values = None
        return read_BND


def places(is_real_Q: np.ndarray) -> slice | torch.Tensor:
    """Where the tokens stand that are no padding, as a stretch where they are one."""
    found = np.flatnonzero(is_real_Q)
    if len(found) and found[-1] - found[0] + 1 == len(found):
        return slice(int(found[0]), int(found[-1]) + 1)
    return torch.from_numpy(found)
