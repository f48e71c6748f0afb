"""The page table of a cache layer: the pages of each row and head, their storage, and the open page that is being filled.

A row's tokens fill pages in order. The last, open page is on the model's device and always read. A full page gets a number and a summary,
and is written to the storage (`etude.kv_cache.offload`). Pages never change, so rows and copies share them; pages of removed rows stay
until the last copy is deleted.

Shapes: B rows, H key/value heads, P pages, T tokens of one, N new pages, Q new tokens, K units that are read, D width.
"""

import copy
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from etude.errors import UserError
from etude.kv_cache.key_index import KeyIndex
from etude.kv_cache.offload import FilePages, MemoryPages, Offload, PagePool
from etude.kv_cache.page_summaries import Index, PageSummaries

_ROOM_PAGES = 16


class Paging(Protocol):
    """The policy of a page table (`etude.kv_cache.retrieval.PagedRetrieval`)."""

    @property
    def digest(self) -> Index: ...

    @property
    def page_tokens(self) -> int: ...

    @property
    def unit_tokens(self) -> int: ...

    @property
    def offload(self) -> Offload: ...

    @property
    def folder(self) -> str | None: ...


class PageStore:
    """The pages of one layer's rows."""

    def __init__(self, paging: Paging) -> None:
        self.paging = paging
        self.tokens_B = np.zeros(0, dtype=np.int64)
        """Number of tokens of each row, without padding."""
        self.storage: Any = None
        self.pool: PagePool | None = None
        """The storage, if it is offloaded; None: all pages are on the model's device."""
        self.numbers_BHP = np.zeros((0, 0, 0), dtype=np.int64)
        """Numbers of each row's full pages, in order, with spare room after them."""
        self.times_BHP = np.zeros((0, 0, 0), dtype=np.int64)
        """Number of reads of units of each page, open or full, during generation so far."""
        self.known: PageSummaries | KeyIndex | None = None
        """Summaries of full pages, for selection without reading them."""
        self.open_BH2TD = torch.zeros(0)
        self._next = count()

    def start(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor) -> None:
        """Create an empty table for keys and values like these.

        Raises UserError for keys and values of different widths, and for an `offload` that is useless on this device.
        """
        if keys_BHTD.shape[-1] != values_BHTD.shape[-1]:
            raise UserError(
                "keys and values of this model have different widths, so they can't lie in one page: take a policy without recall"
            )
        rows, heads, _, width = keys_BHTD.shape
        tokens, unit_tokens, where = self.paging.page_tokens, self.paging.unit_tokens, self.paging.offload
        if where == "memory" and keys_BHTD.device.type == "cpu":
            raise UserError(
                "offload is 'memory', which is the host's, but the model computes there already: set offload to 'file' or 'none'"
            )
        if where == "none":
            self.storage = MemoryPages(keys_BHTD, tokens, keys_BHTD.device)
        elif where == "memory":
            self.storage = self.pool = PagePool(MemoryPages(keys_BHTD, tokens, torch.device("cpu")), keys_BHTD, unit_tokens)
        else:
            folder = Path(self.paging.folder) if self.paging.folder else None
            self.storage = self.pool = PagePool(FilePages(keys_BHTD, tokens, folder), keys_BHTD, unit_tokens)
        self.numbers_BHP, self.times_BHP = np.zeros((rows, heads, 0), dtype=np.int64), np.zeros((rows, heads, 1), dtype=np.int64)
        self.known = KeyIndex(keys_BHTD) if self.paging.digest == "sketch" else PageSummaries(self.paging.digest, keys_BHTD)
        self.open_BH2TD = keys_BHTD.new_zeros(rows, heads, 2, tokens, width)

    # ------------------------------------------------------------------ sizes

    @property
    def units(self) -> int:
        """Number of units of a page."""
        return self.paging.page_tokens // self.paging.unit_tokens

    @property
    def full_B(self) -> np.ndarray:
        """Number of full pages of each row. A page that was just filled stays open until the next token."""
        return np.maximum(self.tokens_B - 1, 0) // self.paging.page_tokens

    @property
    def open_B(self) -> np.ndarray:
        """Number of tokens in each row's open page."""
        return self.tokens_B - self.full_B * self.paging.page_tokens

    @property
    def bytes(self) -> int:
        """Bytes allocated on the model's device."""
        return sum(own.bytes for own in (self.storage, self.known) if own) + self.open_BH2TD.untyped_storage().nbytes()

    @property
    def summary_tokens_B(self) -> np.ndarray:
        """Size of each row's summaries for a head, in units of one token's keys and values."""
        assert self.known
        page_bytes = self.known.known_BHPX.shape[3] * self.known.known_BHPX.itemsize
        token_bytes = self.open_BH2TD.shape[2] * self.open_BH2TD.shape[4] * self.open_BH2TD.itemsize
        found_B: np.ndarray = (self.full_B * page_bytes + self.known.head_bytes) / token_bytes
        return found_B

    # ------------------------------------------------------------------ rows

    def copy(self) -> "PageStore":
        """Return an independent copy. Pages never change, so both share the existing ones; each numbers new ones separately."""
        other = copy.copy(self)
        other.numbers_BHP, other.tokens_B, other.times_BHP = self.numbers_BHP.copy(), self.tokens_B.copy(), self.times_BHP.copy()
        other.known, other.open_BH2TD = self.known and self.known.of(list(range(len(self.tokens_B)))), self.open_BH2TD.clone()
        return other

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, repeats allowed; the caller updates `tokens_B`."""
        self.known = self.known and self.known.of(rows)
        self.numbers_BHP, self.open_BH2TD, self.times_BHP = self.numbers_BHP[rows], self.open_BH2TD[rows], self.times_BHP[rows]

    def take_back(self, tokens: int) -> None:
        """Remove the last tokens of every row (rollback); a page that is no longer full is reopened."""
        before_B = self.full_B
        self.tokens_B = self.tokens_B - tokens
        for row in np.flatnonzero(self.full_B < before_B).tolist():
            again = self.storage.read(torch.from_numpy(self.numbers_BHP[row, :, self.full_B[row]]))
            self.open_BH2TD[row] = again
            assert self.known
            self.known.take_back(row, int(self.full_B[row]), self.past_keys)

    # ------------------------------------------------------------------ content

    def past(self, row: int, head: int) -> torch.Tensor:
        """Return all keys and values [2, T, D] of a head and row."""
        pages_P2TD = self.storage.read(torch.from_numpy(self.numbers_BHP[row, head, : self.full_B[row]]))
        return torch.cat([pages_P2TD.transpose(0, 1).flatten(1, 2), self.open_BH2TD[row, head, :, : self.open_B[row]]], 1)

    def past_keys(self, row: int, pages: int) -> torch.Tensor:
        """Return the keys [H, P, T, D] of a row's first pages."""
        found: torch.Tensor = self.storage.read(torch.from_numpy(self.numbers_BHP[row, :, :pages]))[:, :, 0]
        return found

    @torch.no_grad()
    def fill(self, row: int, states_H2QD: torch.Tensor) -> None:
        """Append a prompt's tokens to a row's open page and new pages."""
        tokens, before = self.paging.page_tokens, int(self.full_B[row])
        states_H2QD = torch.cat([self.open_BH2TD[row, :, :, : int(self.open_B[row])], states_H2QD], 2)
        self.tokens_B[row] = before * tokens + states_H2QD.shape[2]
        filled = int(self.full_B[row]) - before
        if filled:
            pages_HP2TD = states_H2QD[:, :, : filled * tokens].unflatten(2, (filled, tokens)).transpose(1, 2)
            self._put([row] * filled, list(range(before, before + filled)), pages_HP2TD.transpose(0, 1))
        rest = states_H2QD[:, :, filled * tokens :]
        self.open_BH2TD[row, :, :, : rest.shape[2]] = rest

    def add_token(self, rows: np.ndarray) -> None:
        """Count a new token in each of these rows, and make room for it: full open pages are written to the storage."""
        is_full_B = self.open_B[rows] == self.paging.page_tokens
        if is_full_B.any():
            full = rows[is_full_B].tolist()
            self._put(full, self.full_B[full].tolist(), self.open_BH2TD[full])
        self.tokens_B[rows] += 1

    def _put(self, rows: list[int], at: list[int], pages_NH2TD: torch.Tensor) -> None:
        """Number full pages at these places of these rows, and write them to the storage."""
        assert self.known
        count_N, heads = pages_NH2TD.shape[:2]
        more = max(at) + 1 - self.numbers_BHP.shape[2]
        if more > 0:
            more = max(more, _ROOM_PAGES)
            self.numbers_BHP, self.times_BHP = (np.pad(own, ((0, 0), (0, 0), (0, more))) for own in (self.numbers_BHP, self.times_BHP))
            self.known.known_BHPX = torch.nn.functional.pad(self.known.known_BHPX, (0, 0, 0, more))
        numbers = [next(self._next) for _ in range(count_N * heads)]
        self.storage.write(numbers, pages_NH2TD.flatten(0, 1))
        self.numbers_BHP[rows, :, at] = np.array(numbers).reshape(count_N, heads)
        self.known.put(rows, at, pages_NH2TD[:, :, 0], self.past_keys)

    # ------------------------------------------------------------------ units of pages

    def numbers_of(self, rows: np.ndarray, units_BHK: np.ndarray) -> np.ndarray:
        """Convert units from their places in these rows to their numbers."""
        pages_BHK, within_BHK = np.divmod(units_BHK, self.units)
        return np.take_along_axis(self.numbers_BHP[rows], pages_BHK, 2) * self.units + within_BHK

    def count_reads(self, rows: np.ndarray, chosen_BHK: np.ndarray, is_chosen_BHK: np.ndarray) -> None:
        """Count a read of these units and of the open page."""
        heads = np.arange(chosen_BHK.shape[1])[:, None]
        np.add.at(self.times_BHP, (rows[:, None, None], heads, chosen_BHK // self.units), is_chosen_BHK)
        self.times_BHP[rows, :, self.full_B[rows]] += self.units
