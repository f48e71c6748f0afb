"""The kernel of `received.cpp`: the attention exp(q k scale - log Σ exp) that keys receive from a prompt, as sum or maximum over queries.

Torch operations write the scores of some queries to memory and read them again. Here they stay in a core's cache, and half precision is
multiplied without conversion. Shapes: as in `etude.kv_cache.attention`.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from etude.kernels.compiled import AT, DTYPES, NUMBER, REAL, at, in_both, library

Received = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int, float, bool], torch.Tensor]


def received_for(queries_RQD: torch.Tensor, keys_TD: torch.Tensor) -> Received | None:
    """Return the kernel for these queries and keys; None if there is none."""
    fits = keys_TD.device.type == "cpu" and keys_TD.dtype in DTYPES and queries_RQD.dtype == keys_TD.dtype and keys_TD.shape[1] % 2 == 0
    kernel = _kernels().get(keys_TD.dtype) if fits else None
    if kernel is None:
        return None

    def received(
        queries_RQD: torch.Tensor, keys_TD: torch.Tensor, normaliser_RQ: torch.Tensor, asked: int, scale: float, is_sum: bool
    ) -> torch.Tensor:
        """Return the attention [A] that the first A (`asked`) of T keys receive from the last Q of T tokens: the sum over Q and R, or the
        maximum, in float32."""
        queries_RQD, keys_TD, normaliser_RQ = queries_RQD.contiguous(), keys_TD.contiguous(), normaliser_RQ.float().contiguous()
        found_A = normaliser_RQ.new_empty(asked)
        sizes = *queries_RQD.shape[:2], *keys_TD.shape, asked
        kernel(at(queries_RQD), at(normaliser_RQ), at(keys_TD), *sizes, scale, is_sum, at(found_A))
        return found_A.fill_(torch.nan) if normaliser_RQ.isnan().any() else found_A  # a maximum over vector lanes loses NaN

    return received


@cache
def _kernels() -> dict[torch.dtype, Any]:
    """Load the kernels once, by precision; empty if they can't be compiled."""
    argtypes = [AT, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, REAL, ctypes.c_bool, AT]
    found: ctypes.CDLL | None = library("received.cpp", in_both({"received": argtypes}))
    return {dtype: getattr(found, f"received_{name}") for dtype, name in DTYPES.items()} if found else {}
