"""The kernel of `sparse.cpp`: block-sparse attention of a prompt's queries over selected blocks of keys.

Torch operations gather the blocks for each row of queries and write all of its scores to memory. Here a block's scores are converted to
weights and summed while they are in a core's cache. Shapes: as in `etude.kv_cache.sparse_prefill`.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from etude.kernels.compiled import AT, NUMBER, REAL, WIDTH, at, library

BlockSparse = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def block_sparse_for(keys_TD: torch.Tensor, block_tokens: int) -> BlockSparse | None:
    """Return the kernel for these keys and blocks; None if there is none."""
    fits = keys_TD.device.type == "cpu" and keys_TD.dtype == torch.float32 and keys_TD.shape[1] % WIDTH == 0 and block_tokens % WIDTH == 0
    found = _kernel() if fits else None
    if found is None:
        return None

    def read(
        queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, is_read_RMP: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Return causal attention [R, Q, D] of the last Q of T tokens over the selected blocks."""
        heads, number, width = queries_RQD.shape
        queries_RQD = queries_RQD if queries_RQD.stride(-1) == 1 else queries_RQD.contiguous()
        spare = -len(keys_TD) % block_tokens
        keys_PDS = torch.nn.functional.pad(keys_TD, (0, 0, 0, spare)).unflatten(0, (-1, block_tokens)).mT.contiguous()
        values_TD = values_TD.contiguous()
        chosen = is_read_RMP.nonzero()[:, 2].contiguous()
        starts = torch.nn.functional.pad(is_read_RMP.sum(-1).flatten().cumsum(0), (1, 0))
        read_RQD = values_TD.new_empty(heads, number, width)
        asked = at(queries_RQD), *queries_RQD.stride()[:2], heads
        sizes = len(keys_TD) - number, number, block_tokens, width
        found(*asked, at(keys_PDS), at(values_TD), at(chosen), at(starts), *sizes, scale, at(read_RQD))
        return read_RQD

    return read


@cache
def _kernel() -> Any:
    """Load the kernel once; returns None if it can't be compiled."""
    argtypes = [AT, NUMBER, NUMBER, NUMBER, AT, AT, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER, REAL, AT]
    found: ctypes.CDLL | None = library("sparse.cpp", {"block_sparse_float32": argtypes})
    return found and found.block_sparse_float32
