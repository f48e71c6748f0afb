"""Where things lie that kernels read: tables of addresses, as `decoding.cpp` takes them.

A kernel is given addresses alone, so that a table keeps the tensors that it names. Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.kernels.compiled import at

SKETCHED = 16
"""Keys whose sketches lie together."""

BLOCK = 32
"""Positions that lie together: two of the longest vectors of scores, which the processor's tiles want in pairs."""


class Store:
    """Keys and values [rows, K, positions, D] in the kernels' layout; positions a multiple of `BLOCK`."""

    def __init__(self, keys_RKTD: torch.Tensor, values_RKTD: torch.Tensor) -> None:
        self.keys_RKTD, self.values_RKTD = keys_RKTD, values_RKTD
        _, self.kv_heads, positions, self.width = keys_RKTD.shape
        self.arguments = at(keys_RKTD), at(values_RKTD), positions
        """Asked for at every layer of every step."""

    def states(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.keys_RKTD, self.values_RKTD

    @staticmethod
    def of(rows: int, kv_heads: int, positions: int, width: int, dtype: torch.dtype) -> "Store":
        """An empty one: of zeros, since what is masked must be a number still."""
        return Store(*(torch.zeros(rows, kv_heads, positions, width, dtype=dtype) for _ in range(2)))


@dataclass
class Own:
    """What rows have behind them beside a prompt."""

    keys_NKD: torch.Tensor
    """Of the new token, which are put behind the others."""
    values_NKD: torch.Tensor
    store: Store
    slot_N: torch.Tensor
    """Where a row lies in the store."""
    drawn_N: torch.Tensor
    """Positions before the new token."""

    def __post_init__(self) -> None:
        self.keys_NKD, self.values_NKD = alike(self.keys_NKD, self.values_NKD)  # kept here, since kernels are given addresses alone

    def arguments(self) -> tuple[Any, ...]:
        strides = self.keys_NKD.stride()[:2]
        return at(self.keys_NKD), at(self.values_NKD), *strides, *self.store.arguments, at(self.slot_N), at(self.drawn_N)


def alike(keys_NKD: torch.Tensor, values_NKD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """With the same strides."""
    if keys_NKD.stride() == values_NKD.stride() and keys_NKD.stride(-1) == 1:
        return keys_NKD, values_NKD
    return keys_NKD.contiguous(), values_NKD.contiguous()


@dataclass
class Stretches:
    """Slots of a layer, of which each row and head has a stretch: keys and values [S, D], places of tokens in their rows (32 bits) and what
    attention they have had (float32), [S]; where each stretch starts, and how many of its slots are in use, [B, H].
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
    """Pages [.., 2, T, D] of a layer, and of every row and head: what is known of its full ones [B, H, P, X], where these lie among the
    pages [B, H, P], its open one [B, H, 2, T, D], and how often each was read [B, H, P + 1]. Of a row: how many are full, how many tokens
    are in its open one, and how many full ones it reads, [B]. With directions [B, H, D, X] what is known is sketches, and it is tokens of
    full pages, not these, that are read and counted.
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


class Layers:
    """What the layers of a model consist of, for the kernel that runs all of them; products as `in_blocks` lays them out."""

    FIELDS = (
        *("input_norm", "project", "project_bias", "query_norm", "key_norm", "output", "output_bias"),
        *("post_norm", "gate", "gate_bias", "up", "up_bias", "down", "down_bias"),
    )

    def __init__(
        self, each: Sequence[Mapping[str, torch.Tensor | None]], *, heads: int, kv_heads: int, width: int, epsilon: float, scale: float
    ) -> None:
        """`each`: a layer's tensors by the names of `FIELDS`."""
        self._kept = each  # the kernel is given addresses alone
        first = each[0]
        hidden, gate = (len(part) for part in (first["input_norm"], first["gate"]) if part is not None)
        self.sizes = hidden, gate, heads, kv_heads, width
        self.epsilon, self.scale = epsilon, scale
        parts = [[layer[name] for name in self.FIELDS] for layer in each]
        self.table = torch.tensor([[0 if part is None else at(part) for part in layer] for layer in parts])


@dataclass
class Behind:
    """What rows have behind them in every layer: a prompt, and what they have drawn, of which the new token becomes the last."""

    prompts: Sequence[Store]
    own: Sequence[Store]
    seen_N: torch.Tensor
    """Positions of a row's prompt."""
    items: torch.Tensor
    """As in `DecodingKernels.attend`."""
    slot_N: torch.Tensor
    """Where a row lies in its own store."""

    def __post_init__(self) -> None:
        pairs = zip(self.own, self.prompts, strict=True)
        self.table = torch.tensor([[*own.arguments[:2], *prompts.arguments[:2]] for own, prompts in pairs])
