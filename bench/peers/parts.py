"""Where the seconds of etude's own work go, by kind of operation, as torch's profiler sees them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from torch.profiler import ProfilerActivity, profile, record_function

from etude.kernels.decoding import DecodingKernels
from etude.kernels.update import UpdateKernels

KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("mkldnn::_linear_pointwise", "aten::mm", "aten::addmm", "aten::bmm", "kernel::product"),
    "layers of a decoding step": ("kernel::layers",),
    "attention": ("kernel::attend", "kernel::attend_backward", "_flash_attention_for_cpu", "_flash_attention_for_cpu_backward"),
    "norms, gates and positions": (
        *("kernel::rms_norm", "kernel::norm", "kernel::norm_backward", "aten::_fused_rms_norm"),
        *("kernel::gated", "kernel::gated_backward", "kernel::rotate"),
    ),
    "drawing tokens": ("kernel::sample", "aten::multinomial", "aten::searchsorted"),
    "log-probs of tokens": ("kernel::chosen", "kernel::chosen_backward"),
    "optimizer": ("aten::_fused_adamw_", "aten::linalg_vector_norm"),
    "weights laid out": ("mkldnn::_reorder_linear_weight",),
    "copies": ("aten::copy_", "aten::index", "aten::cat", "aten::fill_", "aten::_index_put_impl_", "kernel::put"),
}
_KERNELS = {
    DecodingKernels: ("layers", "product", "attend", "rms_norm", "rotate", "sample", "put"),
    UpdateKernels: ("norm", "norm_backward", "gated", "gated_backward", "rotate", "attend", "attend_backward", "chosen", "chosen_backward"),
}
REST, BETWEEN = "other operations", "between operations"


@contextmanager
def split_into_steps() -> Iterator[dict[str, float]]:
    """Fills what it yields with the seconds of each kind, at the end of the block."""
    found: dict[str, float] = {}
    with ExitStack() as stack:
        for kernels, names in _KERNELS.items():
            for name in names:
                stack.enter_context(patch.object(kernels, name, _recorded(name, getattr(kernels, name))))
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
