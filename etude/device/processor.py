"""The processor's instructions and memory.

What may change a result's bytes is chosen by facts of the machine that are the same at every start, never by a clock, the load or the free
memory: two runs of one seed give the same bytes, also on a busy machine.
"""

from functools import cache
from pathlib import Path

import torch

_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16")
"""Names of the instructions for bfloat16 products: AMX and AVX-512 of x86, and ARM's."""
_AMPERE = (8, 0)
"""The first CUDA capability whose matrix products are bfloat16."""


def best_device() -> str:
    """Return `cuda` where it is available, else `cpu`; `mps` lacks the float64 that sampling needs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def has_bfloat16(device: str | torch.device = "cpu") -> bool:
    """Tell whether the device has instructions for bfloat16 matrix products; without them bfloat16 can be fifty times slower than float32.

    On a CPU torch must also be built with oneDNN, which uses them.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    return torch.backends.mkldnn.is_available() and not processor_flags().isdisjoint(_BFLOAT16)


@cache
def processor_flags() -> frozenset[str]:
    """Return the processor's instructions by Linux's names, {"avx2", "amx_bf16", ...}; without `/proc/cpuinfo` those that torch finds."""
    lines = _lines(Path("/proc/cpuinfo"))
    named = [line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features")) and ":" in line]
    if named:
        return frozenset(named[0])
    return frozenset(name for name, value in torch.cpu.get_capabilities().items() if value is True)


def memory_bytes() -> int | None:
    """Return the total memory, not what is free now; None where the system does not report it."""
    total = next((line.split()[1] for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal:")), None)
    return int(total) * 1024 if total else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
