"""The error of block-sparse prefill, compared with dense attention."""

from dataclasses import dataclass
from statistics import fmean

import torch

from etude.kv_cache import attention
from etude.kv_cache.sparse_prefill import SparsePrefill


@dataclass(frozen=True)
class SparseError:
    """The error in one key head of one layer, or the means over several."""

    density: float
    """Share of the blocks that are read."""
    mass: float
    """Share of dense attention in these blocks, averaged over queries and heads."""
    recall: float
    """Of the blocks with most attention, as many as are read: the share that is read."""
    error: float
    """|sparse - dense| / |dense| of the attention output, L2."""

    @staticmethod
    def mean(several: "list[SparseError]") -> "SparseError":
        return SparseError(*(fmean(getattr(each, name) for each in several) for name in ("density", "mass", "recall", "error")))


@torch.no_grad()
def sparse_error(
    how: SparsePrefill, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float
) -> SparseError:
    """Measure a pattern on the last Q of T tokens; `how.density` accumulates, as in a model."""
    size, tokens, before = how.block_tokens, len(keys_TD), len(keys_TD) - queries_RQD.shape[1]
    is_read_RMP = how.chosen(queries_RQD, keys_TD, scale)
    masses, recalls = [], []
    for row in range(is_read_RMP.shape[1]):
        start, end = max((before // size + row) * size, before), min((before // size + row + 1) * size, tokens)
        scores_RQT = queries_RQD[:, start - before : end - before].float() @ keys_TD[:end].float().T * scale
        is_seen_QT = torch.arange(end, device=keys_TD.device) <= torch.arange(start, end, device=keys_TD.device)[:, None]
        weights_RQT = scores_RQT.masked_fill(~is_seen_QT, -torch.inf).softmax(-1)
        by_block_RP = torch.nn.functional.pad(weights_RQT.mean(1), (0, -end % size)).unflatten(1, (-1, size)).sum(-1)
        for mass_P, is_read_P in zip(by_block_RP, is_read_RMP[:, row, : by_block_RP.shape[1]], strict=True):
            masses.append((float(mass_P[is_read_P].sum()), end - start))
            best = mass_P.topk(int(is_read_P.sum())).indices
            recalls.append(float(is_read_P[best].double().mean()))
    queries = sum(count for _, count in masses)
    sparse, dense = (read(queries_RQD, keys_TD, values_TD, scale) for read in (how.causal, attention.causal))
    return SparseError(
        density=float(is_read_RMP.sum()) / (_pairs(is_read_RMP.shape[1], before // size) * len(queries_RQD)),
        mass=sum(mass * count for mass, count in masses) / queries,
        recall=fmean(recalls),
        error=float((sparse - dense).norm() / dense.norm()),
    )


def _pairs(rows: int, first: int) -> int:
    """Count the pairs of blocks of dense attention, for `rows` blocks of queries after `first` others."""
    return sum(first + row + 1 for row in range(rows))
