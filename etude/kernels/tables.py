"""Tables of addresses for kernels, in the layout of `decoding.cpp`.

A kernel only gets addresses, so a table also holds the tensors. Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.kernels.compiled import at
from etude.kernels.huge_pages import zeros

SKETCHED = 16
"""Number of keys whose sketches are stored together."""

BLOCK = 32
"""Number of positions of a block: two of the longest vectors of scores, since the processor's tiles take pairs."""


class KVStore:
    """Keys and values [rows, K, positions, D] in the kernels' layout; positions a multiple of `BLOCK`."""

    def __init__(self, keys_RKTD: torch.Tensor, values_RKTD: torch.Tensor) -> None:
        self.keys_RKTD, self.values_RKTD = keys_RKTD, values_RKTD
        _, self.kv_heads, positions, self.width = keys_RKTD.shape
        self.arguments = at(keys_RKTD), at(values_RKTD), positions
        """Addresses and size in the kernels' format; computed once, since they are needed at every layer of every step."""

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys_RKTD, self.values_RKTD

    @staticmethod
    def of(rows: int, kv_heads: int, positions: int, width: int, dtype: torch.dtype) -> "KVStore":
        """Allocate an empty store of zeros, since masked positions must hold finite numbers; memory is taken as positions are used."""
        return KVStore(*(zeros(rows, kv_heads, positions, width, dtype=dtype) for _ in range(2)))


@dataclass
class GeneratedKV:
    """The keys and values of generated tokens: the new token's, and the store of those before it."""

    keys_NKD: torch.Tensor
    """Keys of the new token; the kernel appends them and the values to the store."""
    values_NKD: torch.Tensor
    store: KVStore
    slot_N: torch.Tensor
    """The slot of each row in the store."""
    generated_N: torch.Tensor
    """Number of generated tokens before the new one."""

    def __post_init__(self) -> None:
        self.keys_NKD, self.values_NKD = alike(self.keys_NKD, self.values_NKD)  # held here, since kernels only get addresses

    def arguments(self) -> tuple[Any, ...]:
        strides = self.keys_NKD.stride()[:2]
        return at(self.keys_NKD), at(self.values_NKD), *strides, *self.store.arguments, at(self.slot_N), at(self.generated_N)


def alike(keys_NKD: torch.Tensor, values_NKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return keys and values with the same strides, contiguous if they differ."""
    if keys_NKD.stride() == values_NKD.stride() and keys_NKD.stride(-1) == 1:
        return keys_NKD, values_NKD
    return keys_NKD.contiguous(), values_NKD.contiguous()


@dataclass
class SlotTable:
    """The slots of a layer, with a segment for each row and head: keys and values [S, D]; positions of tokens in their rows (32 bits) and
    the attention that they have received (float32), [S]; the start of each segment and the number of its used slots, [B, H].
    """

    keys_SD: torch.Tensor
    values_SD: torch.Tensor
    position_S: torch.Tensor
    mass_S: torch.Tensor
    start_BH: torch.Tensor
    count_BH: torch.Tensor

    def __post_init__(self) -> None:
        parts = self.keys_SD, self.values_SD, self.position_S, self.mass_S, self.start_BH, self.count_BH
        is_one = self.keys_SD.dtype == self.values_SD.dtype and self.keys_SD.shape == self.values_SD.shape
        if not is_one or tuple(part.dtype for part in parts[2:]) != (torch.int32, torch.float32, torch.int64, torch.int64):
            raise TypeError("kernels read keys and values alike, places of 32 bits, masses of float32, and starts and counts of 64 bits")
        self.table = torch.tensor(list(map(at, parts)))


@dataclass
class PageTable:
    """The pages [.., 2, T, D] of a layer. For every row and head: the summaries of its full pages [B, H, P, X], their places in the pages
    [B, H, P], its open page [B, H, 2, T, D], and the reads of each [B, H, P + 1]. For every row: the number of full pages, of tokens in the
    open one, and of full pages that it reads, [B]. With directions [B, H, D, X] the summaries are sketches, and single tokens of full pages
    are read and counted instead of pages.
    """

    pages_P2TD: torch.Tensor
    known_BHPX: torch.Tensor
    open_BH2TD: torch.Tensor
    place_BHP: torch.Tensor
    times_BHP: torch.Tensor
    full_B: torch.Tensor
    open_B: torch.Tensor
    reads_B: torch.Tensor
    directions_BHDX: torch.Tensor | None = None

    def __post_init__(self) -> None:
        self.known_BHPX, self.open_BH2TD = self.known_BHPX.contiguous(), self.open_BH2TD.contiguous()
        _, _, room, numbers = self.known_BHPX.shape
        parts = (self.pages_P2TD, self.known_BHPX, self.open_BH2TD)
        counts = (self.place_BHP, self.times_BHP, self.full_B, self.open_B, self.reads_B)
        directions, tokens, same = 0, self.open_BH2TD.shape[3], list(parts)
        unit_tokens = tokens
        if self.directions_BHDX is not None:
            self.directions_BHDX = self.directions_BHDX.contiguous()
            directions, unit_tokens, same[1] = at(self.directions_BHDX), 1, self.directions_BHDX
        if len({own.dtype for own in same}) > 1 or any(own.dtype != torch.int64 or not own.is_contiguous() for own in counts):
            raise TypeError("kernels read pages, digests and open pages alike, and numbers of 64 bits that lie in order")
        sizes = room, tokens, numbers, int(self.reads_B.max()), unit_tokens, directions
        self.table = torch.tensor([*map(at, (*parts, *counts)), *sizes])


class LayerTable:
    """The weights of a model's layers, for the kernel that runs all of them; products in the layout of `in_blocks`."""

    FIELDS = (
        *("input_norm", "project", "project_bias", "query_norm", "key_norm", "output", "output_bias"),
        *("post_norm", "gate", "gate_bias", "up", "up_bias", "down", "down_bias"),
    )

    def __init__(
        self, each: Sequence[Mapping[str, torch.Tensor | None]], *, heads: int, kv_heads: int, width: int, epsilon: float, scale: float
    ) -> None:
        """Create the table. `each`: a layer's tensors by the names of `FIELDS`."""
        self._kept = each  # held here, since the kernel only gets addresses
        first = each[0]
        hidden, gate = (len(part) for part in (first["input_norm"], first["gate"]) if part is not None)
        self.sizes = hidden, gate, heads, kv_heads, width
        self.epsilon, self.scale = epsilon, scale
        parts = [[layer[name] for name in self.FIELDS] for layer in each]
        self.table = torch.tensor([[0 if part is None else at(part) for part in layer] for layer in parts])


@dataclass
class PrefixTable:
    """The keys and values before the new token of each row, in every layer: a prompt's, and those of generated tokens."""

    prompts: Sequence[KVStore]
    own: Sequence[KVStore]
    seen_N: torch.Tensor
    """Length of each row's prompt."""
    items: torch.Tensor
    """As in `DecodingKernels.attend`."""
    slot_N: torch.Tensor
    """The slot of each row in its own store."""

    def __post_init__(self) -> None:
        pairs = zip(self.own, self.prompts, strict=True)
        self.table = torch.tensor([[*own.arguments[:2], *prompts.arguments[:2]] for own, prompts in pairs])
