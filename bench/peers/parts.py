"""Where the seconds of etude's own work go, by kind of operation, as torch's profiler sees them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.profiler import ProfilerActivity, profile, record_function

from etude.kernels.decoding import DecodingKernels

KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::bmm", "kernel::product"),
    "attention": ("attend", "_flash_attention_for_cpu", "_flash_attention_for_cpu_backward"),
    "norms and positions": ("rms_norm", "rotate", "aten::_fused_rms_norm"),
    "drawing tokens": ("sample", "aten::multinomial", "aten::searchsorted"),
    "optimizer": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
    "weights laid out": ("mkldnn::_reorder_linear_weight",),
    "copies": ("aten::copy_", "aten::index", "aten::cat", "aten::fill_", "aten::_index_put_impl_", "put"),
}
REST, BETWEEN = "other operations", "between operations"


@contextmanager
def parted() -> Iterator[dict[str, float]]:
    """Fills what it yields with the seconds of each kind, at the end of the block."""
    found: dict[str, float] = {}
    with ExitStack() as stack:
        for name in ("product", "attend", "rms_norm", "rotate", "sample", "put"):
            stack.enter_context(patch.object(DecodingKernels, name, _recorded(name, getattr(DecodingKernels, name))))
        seen = stack.enter_context(profile(activities=[ProfilerActivity.CPU]))
        began = time.perf_counter()
        yield found
        seconds = time.perf_counter() - began
    for event in seen.key_averages():
        kind = next((kind for kind, names in KINDS.items() if event.key.endswith(names)), REST)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    found[BETWEEN] = max(0.0, seconds - sum(found.values()))


def _recorded(name: str, kernel: Any) -> Any:
    def recorded(*given: Any, **named: Any) -> Any:
        with record_function(f"kernel::{name}"):
            return kernel(*given, **named)

    return recorded
