"""Keys and values of one layer in one flat store, in which the number of kept tokens may differ between rows and heads.

A segment is a part of the store for one head of one row, with used and spare slots. Only kept tokens take memory. Adjacent rows with
segments of one length can also be viewed as a rectangle, without a copy.

Shapes: B rows, H key/value heads, S slots of the store, T slots of a segment, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
import torch

from etude.kernels import huge_pages
from etude.kernels.tables import SlotTable

ROOM_TOKENS = 32
"""Number of spare slots of a new segment, so that it is not copied at every token."""


@dataclass(frozen=True)
class Segment:
    """The tokens of a row that a head keeps, by position."""

    keys_TD: torch.Tensor
    values_TD: torch.Tensor
    position_T: torch.Tensor
    """The position of each token in its row, from 0, without padding."""
    mass_T: torch.Tensor
    """Attention received so far, summed over queries and averaged over the query heads of a key; 0 if not recorded."""

    def __len__(self) -> int:
        return len(self.position_T)

    def then(self, other: "Segment") -> "Segment":
        """Concatenate a copy of both, `other` after this one."""
        parts = zip(self.parts(), other.parts(), strict=True)
        return Segment(*(torch.cat(pair) for pair in parts))

    def at(self, index_K: torch.Tensor) -> "Segment":
        return Segment(*(part[index_K] for part in self.parts()))

    def parts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.keys_TD, self.values_TD, self.position_T, self.mass_T


class Slots:
    """The segments of a layer."""

    def __init__(self, segments_BH: Sequence[Sequence[Segment]], *, room_tokens: int = ROOM_TOKENS) -> None:
        """Copy these segments, with room for `room_tokens` more tokens in each."""
        self.count_BH = np.array([[len(segment) for segment in row] for row in segments_BH], dtype=np.int64)
        self.room_tokens = room_tokens
        room_BH = self.count_BH + room_tokens
        self.room_BH = room_BH
        self.start_BH = (room_BH.cumsum() - room_BH.ravel()).reshape(room_BH.shape)
        like, total = segments_BH[0][0], int(room_BH.sum())
        self.keys_SD, self.values_SD = (
            huge_pages.zeros(total, states_TD.shape[-1], dtype=states_TD.dtype, device=states_TD.device)
            for states_TD in (like.keys_TD, like.values_TD)
        )
        self.position_S = like.position_T.new_empty(total)
        self.mass_S = like.mass_T.new_zeros(total)
        for start, segment in zip(self.start_BH.ravel().tolist(), chain(*segments_BH), strict=True):
            own = slice(start, start + len(segment))
            self.keys_SD[own], self.values_SD[own] = segment.keys_TD, segment.values_TD
            self.position_S[own], self.mass_S[own] = segment.position_T, segment.mass_T

    @property
    def rows(self) -> int:
        return len(self.count_BH)

    @property
    def heads(self) -> int:
        return self.count_BH.shape[1]

    @property
    def bytes(self) -> int:
        """Bytes allocated for the stores."""
        return sum(store.untyped_storage().nbytes() for store in (self.keys_SD, self.values_SD, self.position_S, self.mass_S))

    def segment(self, row: int, head: int) -> Segment:
        """Return a head's segment, as a view."""
        start, count = int(self.start_BH[row, head]), int(self.count_BH[row, head])
        own = slice(start, start + count)
        return Segment(self.keys_SD[own], self.values_SD[own], self.position_S[own], self.mass_S[own])

    def row(self, row: int) -> list[Segment]:
        return [self.segment(row, head) for head in range(self.heads)]

    @cached_property
    def runs(self) -> list[range]:
        """Runs of adjacent rows whose segments all have the same capacity; rows whose heads differ are in none."""
        found: list[range] = []
        for row, room_H in enumerate(self.room_BH):
            if (room_H != room_H[0]).any():
                continue
            if found and found[-1].stop == row and self.room_BH[row - 1, 0] == room_H[0]:
                found[-1] = range(found[-1].start, row + 1)
            else:
                found.append(range(row, row + 1))
        return found

    def rectangle(self, store_S: torch.Tensor, run: range) -> torch.Tensor:
        """Return a view [B, H, T, ...] of a run in a store; segments shorter than the longest one end in undefined values."""
        start, room = int(self.start_BH[run.start, 0]), int(self.room_BH[run.start, 0])
        own_S = store_S[start : start + len(run) * self.heads * room]
        return own_S.view(len(run), self.heads, room, *store_S.shape[1:])[:, :, : int(self.count_BH[run.start : run.stop].max())]

    @property
    def stretches(self) -> SlotTable:
        """The segments in the kernels' format: addresses of the current stores."""
        counts = torch.from_numpy(self.start_BH), torch.from_numpy(self.count_BH)
        return SlotTable(self.keys_SD, self.values_SD, self.position_S, self.mass_S, *counts)

    @property
    def is_full(self) -> bool:
        """Whether a segment has no spare slot."""
        return bool((self.count_BH == self.room_BH).any())

    def append(self, keys_BHD: torch.Tensor, values_BHD: torch.Tensor, position_B: np.ndarray, is_real_B: np.ndarray) -> None:
        """Append a token to each row where it is real, in spare slots."""
        device = self.keys_SD.device
        next_NH = torch.from_numpy((self.start_BH + self.count_BH)[is_real_B]).to(device)
        if is_real_B.all():
            self.keys_SD[next_NH], self.values_SD[next_NH] = keys_BHD, values_BHD
        else:
            rows_N = torch.from_numpy(np.flatnonzero(is_real_B)).to(device)
            self.keys_SD[next_NH], self.values_SD[next_NH] = keys_BHD[rows_N], values_BHD[rows_N]
        self.position_S[next_NH] = torch.from_numpy(position_B[is_real_B]).to(self.position_S)[:, None].expand_as(next_NH)
        self.mass_S[next_NH] = 0.0
        self.count_BH[is_real_B] += 1

    def end_at(self, place_B: np.ndarray) -> None:
        """Remove each row's tokens from this position; their slots become spare again."""
        for row, place in enumerate(place_B.tolist()):
            self.count_BH[row] = [int(torch.searchsorted(own.position_T, place)) for own in self.row(row)]

    def select(self, rows: Sequence[int], *, room_tokens: int) -> "Slots":
        """Return a copy of these rows, repeats allowed, with room for `room_tokens` more tokens in each segment."""
        return Slots([self.row(row) for row in rows], room_tokens=room_tokens)

    def with_room(self) -> "Slots":
        """Return a copy with spare slots."""
        return self.select(range(self.rows), room_tokens=self.room_tokens)
