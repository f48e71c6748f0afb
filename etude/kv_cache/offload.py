"""Page storage: on the model's device, or offloaded to the host's memory or a file, with a pool of the last used pages on the device.

A page is written once and never changes, so rows can share it. It is read in units: whole pages, or parts of them. Pages and units are
numbered: unit `i` of page `p` has the number `p` times the units of a page, plus `i`.

Shapes: P pages, T tokens of one, D width, N units, U tokens of one.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from etude.errors import UserError
from etude.kernels import huge_pages

_GROWTH_PAGES = 64
Offload = Literal["none", "memory", "file"]


class PageStorage(Protocol):
    """Pages by number, each with keys and values [2, T, D]."""

    def write(self, numbers: Sequence[int], pages_P2TD: torch.Tensor) -> None: ...

    def read(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return a copy [P, 2, T, D] of these pages."""

    def read_units(self, numbers: torch.Tensor, unit_tokens: int) -> torch.Tensor:
        """Return a copy [N, 2, U, D] of these units."""

    def expect(self, numbers: np.ndarray, unit_tokens: int) -> None:
        """Prefetch these units asynchronously, since they may be read soon."""

    @property
    def bytes(self) -> int:
        """Bytes allocated on the model's device."""


def gather_units(pages_P2TD: torch.Tensor, places: torch.Tensor, unit_tokens: int, dim: int = 0) -> torch.Tensor:
    """Copy keys and values of the units at these places: [2, ..., U, D], or with the 2 at dimension `dim`."""
    units = pages_P2TD.shape[2] // unit_tokens
    places = places.to(pages_P2TD.device)
    first = places // units * 2 * units + places % units
    both = torch.stack([first, first + units], dim)
    # indexing would copy number by number on a CPU
    return pages_P2TD.unflatten(2, (units, unit_tokens)).flatten(0, 2).index_select(0, both.flatten()).unflatten(0, both.shape)


class MemoryPages:
    """Pages in the memory of a device: the model's, or the host's."""

    def __init__(self, like: torch.Tensor, page_tokens: int, device: torch.device) -> None:
        self.pages_P2TD = torch.empty(0, 2, page_tokens, like.shape[-1], dtype=like.dtype, device=device)

    def write(self, numbers: Sequence[int], pages_P2TD: torch.Tensor) -> None:
        if numbers and max(numbers) >= len(self.pages_P2TD):
            room = max(max(numbers) + 1, len(self.pages_P2TD) * 5 // 4, _GROWTH_PAGES)
            grown = huge_pages.zeros(room, *self.pages_P2TD.shape[1:], dtype=self.pages_P2TD.dtype, device=self.pages_P2TD.device)
            grown[: len(self.pages_P2TD)] = self.pages_P2TD
            self.pages_P2TD = grown
        self.pages_P2TD[list(numbers)] = pages_P2TD.to(self.pages_P2TD.device)

    def read(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.pages_P2TD[numbers.to(self.pages_P2TD.device)]

    def read_units(self, numbers: torch.Tensor, unit_tokens: int) -> torch.Tensor:
        return gather_units(self.pages_P2TD, numbers, unit_tokens, dim=1)

    def bring(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the places of these units in `pages_P2TD`."""
        return numbers

    def expect(self, numbers: np.ndarray, unit_tokens: int) -> None:
        """Do nothing, since the units are in memory."""

    @property
    def bytes(self) -> int:
        return self.pages_P2TD.untyped_storage().nbytes()


class FilePages:
    """Pages in an anonymous memory-mapped file, which is deleted when the process ends.

    Raises UserError for a folder that is not writable or has no space.
    """

    def __init__(self, like: torch.Tensor, page_tokens: int, folder: Path | None) -> None:
        self._shape, self._dtype = (2, page_tokens, like.shape[-1]), like.dtype
        self._page_bytes = 2 * page_tokens * like.shape[-1] * like.element_size()
        try:
            self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # open as long as the tier is there
        except OSError as error:
            raise UserError(f"pages can't be offloaded to {folder}: {error.strerror}; name a folder that can be written to") from None
        weakref.finalize(self, self._file.close)
        self._folder = folder or Path(tempfile.gettempdir())
        self._room = 0
        self._map: Any = None

    def write(self, numbers: Sequence[int], pages_P2TD: torch.Tensor) -> None:
        if numbers and max(numbers) >= self._room:
            self._grow(max(max(numbers) + 1, self._room * 5 // 4, _GROWTH_PAGES))
        if numbers:
            self._mapped()[list(numbers)] = pages_P2TD.cpu()
            self._let_go()

    def read(self, numbers: torch.Tensor) -> torch.Tensor:
        if not self._room:
            return torch.empty(0, *self._shape, dtype=self._dtype)
        found = self._mapped()[numbers.cpu()]
        self._let_go()
        return found

    def read_units(self, numbers: torch.Tensor, unit_tokens: int) -> torch.Tensor:
        found = gather_units(self._mapped(), numbers.cpu(), unit_tokens, dim=1)
        self._let_go()
        return found

    def expect(self, numbers: np.ndarray, unit_tokens: int) -> None:
        """Ask the system to read these pages ahead, while the model computes."""
        if not hasattr(mmap, "MADV_WILLNEED"):
            return
        for first in np.unique(numbers // (self._shape[1] // unit_tokens)).tolist():
            start = first * self._page_bytes // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, min((first + 1) * self._page_bytes, len(self._map)) - start)

    @property
    def bytes(self) -> int:
        return 0

    def _grow(self, room: int) -> None:
        """Allocate disk blocks now if the system can; a disk that fills up later would look like a broken one."""
        try:
            os.ftruncate(self._file.fileno(), room * self._page_bytes)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                os.posix_fallocate(self._file.fileno(), 0, room * self._page_bytes)
        except OSError as error:
            raise UserError(
                f"no room to offload {room * self._page_bytes / 2**20:.1f} MiB to {self._folder} ({error.strerror}): name a folder with "
                "more, or keep pages in memory (offload 'none')"
            ) from None
        self._map, self._room = mmap.mmap(self._file.fileno(), room * self._page_bytes), room

    def _mapped(self) -> torch.Tensor:
        return torch.frombuffer(self._map, dtype=self._dtype).view(self._room, *self._shape)

    def _let_go(self) -> None:
        """Release touched pages, so that the system can drop them and does not count them for this process."""
        assert self._map
        self._map.madvise(mmap.MADV_DONTNEED)


class PagePool:
    """A pool of offloaded units on the model's device, as large as one read; the least recently used unit is replaced."""

    def __init__(self, far: PageStorage, like: torch.Tensor, unit_tokens: int) -> None:
        self.far = far
        self.pages_P2TD = like.new_empty(0, 2, unit_tokens, like.shape[-1])
        """One unit at each place."""
        self._holds = np.zeros(0, dtype=np.int64)
        """The unit at each place of the pool."""
        self._asked = np.zeros(0, dtype=np.int64)
        self._time = 0
        self._expected = np.zeros(0, dtype=np.int64)
        """Units of the last prefetch."""
        self.hits = self.misses = self.expected_misses = self.moved_bytes = 0

    def write(self, numbers: Sequence[int], pages_P2TD: torch.Tensor) -> None:
        self.far.write(numbers, pages_P2TD)

    def read(self, numbers: torch.Tensor) -> torch.Tensor:
        """Read pages without storing them in the pool."""
        return self.far.read(numbers).to(self.pages_P2TD.device)

    def expect(self, numbers: np.ndarray) -> None:
        """Prefetch units that the next queries may read and that are not in the pool."""
        wanted = np.unique(numbers)
        self._expected = wanted[self._places(wanted) < 0]
        self.far.expect(self._expected, self._unit_tokens)

    def bring(self, numbers: torch.Tensor) -> torch.Tensor:
        """Fetch missing units into the pool, where they stay until replaced; returns the places of all these units in `pages_P2TD`."""
        # find the units that are in the pool
        wanted, inverse = np.unique(numbers.cpu().numpy(), return_inverse=True)
        self._time += 1
        self._reserve(len(wanted))
        places = self._places(wanted)
        there = places >= 0
        self._asked[places[there]] = self._time
        missing = wanted[~there]
        self.hits, self.misses = self.hits + int(there.sum()), self.misses + len(missing)
        self.expected_misses += int(np.isin(missing, self._expected).sum())
        # fetch the others to the least recently used places
        if len(missing):
            given = np.argsort(self._asked, kind="stable")[: len(missing)]
            places[~there], self._holds[given], self._asked[given] = given, missing, self._time
            units = self.far.read_units(torch.from_numpy(missing), self._unit_tokens).to(self.pages_P2TD.device)
            self.pages_P2TD.index_copy_(0, torch.from_numpy(given).to(units.device), units)
            self.moved_bytes += units.nbytes
        return torch.from_numpy(places[inverse].reshape(numbers.shape))

    def let_go(self) -> None:
        """Empty the pool."""
        self.pages_P2TD = self.pages_P2TD.new_empty(0, *self.pages_P2TD.shape[1:])
        self._holds, self._asked = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)

    @property
    def bytes(self) -> int:
        return self.pages_P2TD.untyped_storage().nbytes()

    @property
    def _unit_tokens(self) -> int:
        return self.pages_P2TD.shape[2]

    def _places(self, numbers: np.ndarray) -> np.ndarray:
        """Return the place of each unit in the pool, or -1. Only the pool is searched: where a unit is a token, a table of all units would
        take as much memory as a key index.
        """
        if not len(self._holds):
            return np.full(len(numbers), -1, dtype=np.int64)
        order = np.argsort(self._holds)
        found = order[np.searchsorted(self._holds, numbers, sorter=order).clip(max=len(order) - 1)]
        return np.where(self._holds[found] == numbers, found, -1)

    def _reserve(self, places: int) -> None:
        if places > len(self.pages_P2TD):
            near = self.pages_P2TD.new_empty(places, *self.pages_P2TD.shape[1:])
            near[: len(self.pages_P2TD)] = self.pages_P2TD
            more = places - len(self.pages_P2TD)
            self.pages_P2TD = near
            self._holds = np.append(self._holds, np.full(more, -1, dtype=np.int64))
            self._asked = np.append(self._asked, np.zeros(more, dtype=np.int64))
