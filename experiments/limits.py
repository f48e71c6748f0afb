"""Measure what this machine's matrix products and memory allow, for the shapes of a model: the ceiling of a benchmark's numbers."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from etude.engine.packed import PackedLinear, can_pack

Product = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def decoding_limit(model: Any, rows: int, dtype: torch.dtype, seconds: float = 1.0, *, of_torch: bool = False) -> float:
    """Measure the tokens a second if a decoding step of so many rows took only its matrix products, computed the fastest way here.

    `of_torch`: by torch's operations alone, with weights laid out as its library wants them, not by the engine's own kernel.
    """
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    inputs = {width: torch.randn(rows, width).to(dtype) for width in {module.in_features for module in linears}}
    plain = [module.weight.to(dtype) for module in linears]
    layouts: list[list[Product]] = [[partial(nn.functional.linear, weight=weight) for weight in plain]]
    if can_pack(plain[0].device, dtype):
        packed = [PackedLinear(module.in_features, module.out_features) for module in linears]
        for layer, weight in zip(packed, plain, strict=True):
            layer.pack(weight, None)
            layer.few = None if of_torch else layer.few
        layouts.append(list(packed))

    def step(products: list[Product]) -> None:
        for module, product in zip(linears, products, strict=True):
            product(inputs[module.in_features])

    return rows / min(_seconds(partial(step, layout), seconds) for layout in layouts)


def matmul_flops(dtype: torch.dtype, size: int = 2048, seconds: float = 1.0) -> float:
    """Measure the operations a second of a large square product."""
    left, right = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, seconds)


def copy_bytes(size: int = 2**28, seconds: float = 1.0) -> float:
    """Measure the bytes a second of a copy in memory, counting reads and writes."""
    source, target = torch.ones(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    return 2 * size / _seconds(lambda: target.copy_(source), seconds)


def _seconds(work: Callable[[], object], seconds: float) -> float:
    """Measure the median of as many runs as fit, after one to warm up."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]
