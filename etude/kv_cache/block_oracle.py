"""How much of dense attention the blocks have that a sparse pattern chooses: what it costs in truth, measured by computing both."""

from dataclasses import dataclass
from statistics import fmean

import torch

from etude.kv_cache import attention
from etude.kv_cache.sparse import Sparse


@dataclass(frozen=True)
class Compared:
    """Of one layer's key head or, as means, of several."""

    density: float
    """The share of the blocks that is read."""
    mass: float
    """The share of dense attention that lies in these, the mean over queries and heads."""
    recall: float
    """Of as many blocks as a block of queries reads, those that have most of its attention: the share that is read."""
    error: float
    """|sparse - dense| / |dense| of what all queries read, L2."""

    @staticmethod
    def mean(several: "list[Compared]") -> "Compared":
        return Compared(*(fmean(getattr(each, name) for each in several) for name in ("density", "mass", "recall", "error")))


@torch.no_grad()
def compared(how: Sparse, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float) -> Compared:
    """What the pattern reads of the last Q of T tokens' attention; `how.density` counts on, as in a model."""
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
    return Compared(
        density=float(is_read_RMP.sum()) / (_pairs(is_read_RMP.shape[1], before // size) * len(queries_RQD)),
        mass=sum(mass * count for mass, count in masses) / queries,
        recall=fmean(recalls),
        error=float((sparse - dense).norm() / dense.norm()),
    )


def _pairs(rows: int, first: int) -> int:
    """Blocks that so many blocks of queries read when dense, the first of them behind `first` others."""
    return sum(first + row + 1 for row in range(rows))
