"""Fixed thresholds of malloc, so that the heap does not grow with every sampled batch.

A batch's keys and values are dozens of tensors of 10 to 30 MB. glibc maps blocks of this size from the system until the first of them is
freed. Then it raises its threshold (mallopt(3), M_MMAP_THRESHOLD, up to 32 MB) and allocates them on its heap, where freed blocks are not
reused. An explicit threshold does not change.
"""

import ctypes
import os
import platform

_MAPPED_FROM_BYTES = 8 << 20
"""Smaller blocks stay on the heap, whose pages are in memory already: training allocates many of up to 6 MB (SmolLM2-135M)."""

_KEPT_FREE_BYTES = 128 << 20
"""Free memory to keep at the end of the heap; the default, 128 KiB, changes with the other threshold."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def pin_malloc_thresholds() -> None:
    """Set glibc's mmap and trim thresholds for the whole process: large blocks are mapped, and returned as soon as they are freed.

    Does nothing without glibc, or if the environment sets one of the thresholds.
    """
    own = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in own) or "threshold" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
