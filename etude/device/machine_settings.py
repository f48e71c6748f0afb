"""Settings of the device; free of torch, so that settings are read and checked without it."""

import re
from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least, value_hint

_DEVICES = re.compile(r"auto|cpu|(?:cuda|mps)(?::\d+)?")


@dataclass(frozen=True)
class Machine:
    """Settings of the machine: device, precision, threads and batch sizes.

    Raises UserError for an unknown device.
    """

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, or one such as `cuda:1`."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; weights and optimizer stay float32. `auto` = bfloat16 if the hardware has instructions for it
    (AMX-BF16, AVX512-BF16, ARM bf16, CUDA 8.0), else float32."""
    threads: int | None = None
    """CPU threads; null = torch's default (`OMP_NUM_THREADS`), on resume the number that the run began with. Another number rounds
    differently, so that the same seed gives other results."""
    kv_cache_tokens: int = 32768
    """Most cache positions (rows x length) that are decoded together."""
    max_tokens_per_microbatch: int = 2048
    """Most positions in a micro-batch of an update."""

    def __post_init__(self) -> None:
        if self.threads is not None:
            at_least("machine.threads", self.threads, 1)
        if not _DEVICES.fullmatch(self.device):
            hint = value_hint("machine.device", self.device)
            raise UserError(f"machine.device {self.device!r} can't be used here:{hint} choose auto, cpu, cuda, or one such as cuda:1")
