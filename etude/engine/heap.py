"""The C library's heap, kept from growing with every batch that is sampled.

A batch's keys and values are dozens of tensors of 10 to 30 MB. glibc maps blocks of such a size from the system, but only until the first
of them is freed: from then on it looks for them on its heap (mallopt(3), M_MMAP_THRESHOLD: it moves up to 32 MB), and there those that were
freed are not found again, though nothing else is in their place. A threshold that is set stays where it is.
"""

import ctypes
import os
import platform

_MAPPED_FROM_BYTES = 8 << 20
"""Smaller ones stay on the heap, whose pages are there already: learning makes many of up to 6 MB (SmolLM2-135M)."""

_KEPT_FREE_BYTES = 128 << 20
"""At the end of the heap; it moved with the other, and would be 128 KiB otherwise."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def fix_thresholds() -> None:
    """Have large blocks mapped, and given back as soon as they are freed; for the whole process, and where glibc allocates.

    Whoever has set one of the thresholds in the environment keeps it.
    """
    own = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in own) or "threshold" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
