"""Memory in huge pages of 2 MiB, on systems that have them (Linux): reading is faster, since fewer addresses are translated.

It is for data that is read at every step: weights and long contexts. On other devices and systems, and for tensors smaller than a page, the
usual allocation is used.
"""

import mmap
from contextlib import suppress

import torch

PAGE_BYTES = 1 << 21
_LINE_BYTES = 64


def zeros(*shape: int, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
    """Allocate zeros, like `torch.zeros`."""
    size = dtype.itemsize * torch.Size(shape).numel()
    if (device and device.type != "cpu") or size < PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(_mapped(size), dtype=dtype).view(shape)


def _mapped(size: int) -> memoryview:
    """Map `size` bytes from the beginning of a huge page. The bytes before it are never touched, and the rest after the last whole huge
    page is in small pages, so that no memory is wasted.
    """
    whole = mmap.mmap(-1, size + PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    skipped = -torch.frombuffer(whole, dtype=torch.uint8).data_ptr() % PAGE_BYTES
    with suppress(OSError):  # a system without such pages
        whole.madvise(mmap.MADV_HUGEPAGE, skipped, size // PAGE_BYTES * PAGE_BYTES)
    return memoryview(whole)[skipped : skipped + size]


class Chunks:
    """An arena: memory for long-lived tensors, allocated one after another from large chunks."""

    def __init__(self, chunk_bytes: int = 16 * PAGE_BYTES) -> None:
        self._chunk, self._used = torch.empty(0, dtype=torch.uint8), 0
        self._chunk_bytes = chunk_bytes

    def zeros(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Allocate zeros, like `torch.zeros`. A chunk is freed when all of its tensors are; the last one stays."""
        size = dtype.itemsize * torch.Size(shape).numel()
        if size >= self._chunk_bytes:
            return zeros(*shape, dtype=dtype)
        if self._used + size > len(self._chunk):
            self._chunk, self._used = zeros(self._chunk_bytes, dtype=torch.uint8), 0
        start, self._used = self._used, self._used + -(-size // _LINE_BYTES) * _LINE_BYTES
        return self._chunk[start : start + size].view(dtype).view(shape)
