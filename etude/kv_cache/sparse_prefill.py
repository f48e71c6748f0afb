"""Block-sparse prefill: each block of a prompt's queries reads only the blocks of keys with the highest estimated attention.

    antidiagonal     the estimate is the softmax of sums over antidiagonals of stride S: each key and each query of a group of S tokens is
                     paired with exactly one of the other group, so that no token is ignored (XAttention, Xu et al. 2025, ICML, arXiv
                     2503.16428):
                         A = softmax(sum_s q[iS + S - 1 - s] k[jS + s] / (sqrt(d) S)), summed over a block's groups
    vertical_slash   the attention of the last block is computed; its columns and diagonals with the most attention are used for all blocks
                     (MInference, Jiang et al. 2024, NeurIPS, arXiv 2407.02490; here by blocks, and as many as reach the threshold)

For each head, the largest estimates of a row are taken until they sum to `threshold` of the row; the first block and a query's own are
always read. Identity: threshold 1 is dense attention.

Shapes: R query heads that share a key head, Q queries, T tokens, D width, M blocks of queries, P blocks of keys, S tokens of a block, K
blocks that are read.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.nn.functional import pad

from etude.errors import UserError, at_least, unknown
from etude.kernels.sparse import block_sparse_for

Pattern = Literal["antidiagonal", "vertical_slash"]
PATTERNS: tuple[Pattern, ...] = ("antidiagonal", "vertical_slash")
_ROWS = 8
"""Number of blocks of queries whose estimates are computed at a time."""


@dataclass
class Density:
    """Number of blocks read, summed over prompts, layers and heads."""

    read: int = 0
    """Pairs of blocks."""
    dense: int = 0

    @property
    def share(self) -> float:
        return self.read / self.dense if self.dense else 1.0


@dataclass(frozen=True)
class SparsePrefill:
    """The selection of blocks, as the `sparse` field of a cache policy; set it in Python: `replace(policy, sparse=SparsePrefill())`."""

    pattern: Pattern = "antidiagonal"
    threshold: float = 0.9
    block_tokens: int = 128
    stride: int = 16
    """Stride of the antidiagonals; larger is cheaper and coarser; 8 and 16 in the paper."""
    from_tokens: int = 1024
    """Contexts with fewer tokens are dense."""
    density: Density = field(default_factory=Density, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise unknown("pattern", self.pattern, PATTERNS)
        if not 0 < self.threshold <= 1:
            raise UserError(f"threshold must be above 0 and at most 1 (dense), got {self.threshold}")
        at_least("stride", self.stride, 1)
        if self.block_tokens % self.stride:
            raise UserError(f"block_tokens is {self.block_tokens}, which is no multiple of stride {self.stride}: set one that is")

    @torch.no_grad()
    def causal(self, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float) -> torch.Tensor:
        """Return the attention [R, Q, D] of the last Q of T tokens to the selected blocks, without gradients, computed in float32."""
        if keys_TD.dtype in (torch.bfloat16, torch.float16):
            return self.causal(queries_RQD.float(), keys_TD.float(), values_TD.float(), scale).to(values_TD.dtype)
        is_read_RMP = self.chosen(queries_RQD, keys_TD, scale)
        kernel = block_sparse_for(keys_TD, self.block_tokens)
        if kernel and keys_TD.shape == values_TD.shape:
            return kernel(queries_RQD, keys_TD, values_TD, is_read_RMP, scale)
        return self._gathered(queries_RQD, keys_TD, values_TD, is_read_RMP, scale)

    def _gathered(
        self, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, is_read_RMP: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """Compute the same with torch operations."""
        # allocate the buffers once
        size, tokens = self.block_tokens, len(keys_TD)
        before = tokens - queries_RQD.shape[1]
        keys_PSD, values_PSD = (pad(states_TD, (0, 0, 0, -tokens % size)).unflatten(0, (-1, size)) for states_TD in (keys_TD, values_TD))
        is_later_SS = torch.ones(size, size, dtype=torch.bool, device=keys_TD.device).triu(1)
        read_RQD = queries_RQD.new_empty(*queries_RQD.shape[:2], values_TD.shape[-1])
        near_PSD, near_scores = torch.empty_like(keys_PSD), keys_PSD.new_empty(size * keys_PSD.shape[:2].numel())
        near_values_PSD, near_weights = torch.empty_like(values_PSD), torch.empty_like(near_scores)
        for row in range(is_read_RMP.shape[1]):
            block = before // size + row
            start, end = max(block * size, before), min((block + 1) * size, tokens)
            own, is_later_QS = slice(start - before, end - before), is_later_SS[start - block * size : end - block * size]
            for head, queries_QD in enumerate(queries_RQD[:, own] * scale):
                at_K = is_read_RMP[head, row].nonzero()[:, 0]  # the queries' own block is the last
                keys_SD, values_SD = (
                    torch.index_select(states_PSD, 0, at_K, out=near[: len(at_K)]).flatten(0, 1)
                    for states_PSD, near in ((keys_PSD, near_PSD), (values_PSD, near_values_PSD))
                )
                shape = (len(queries_QD), len(keys_SD))
                scores_QS = torch.mm(queries_QD, keys_SD.T, out=near_scores[: shape[0] * shape[1]].view(shape))
                scores_QS[:, -size:].masked_fill_(is_later_QS, -torch.inf)
                weights_QS = torch.softmax(scores_QS, -1, out=near_weights[: scores_QS.numel()].view(shape))
                torch.mm(weights_QS, values_SD, out=read_RQD[head, own])
        return read_RQD

    def chosen(self, queries_RQD: torch.Tensor, keys_TD: torch.Tensor, scale: float) -> torch.Tensor:
        """Select the blocks of keys that each block of queries reads, [R, M, P]; none after its own."""
        promise = _antidiagonal if self.pattern == "antidiagonal" else _vertical_slash
        size, tokens = self.block_tokens, len(keys_TD)
        first, blocks = (tokens - queries_RQD.shape[1]) // size, -(-tokens // size)
        own_M1 = torch.arange(first, blocks, device=keys_TD.device)[:, None]
        is_past_MP = torch.arange(blocks, device=keys_TD.device) <= own_M1
        promises_RMP = promise(queries_RQD.float(), keys_TD.float(), scale, self).masked_fill(~is_past_MP, 0)
        is_read_RMP = _largest(promises_RMP, self.threshold) if self.threshold < 1 else torch.ones_like(promises_RMP, dtype=torch.bool)
        is_read_RMP[:, :, 0] = True
        is_read_RMP |= torch.arange(blocks, device=keys_TD.device) == own_M1
        is_read_RMP &= is_past_MP
        self.density.read += int(is_read_RMP.sum())
        self.density.dense += int(is_past_MP.sum()) * len(queries_RQD)
        return is_read_RMP


def _largest(promises_RMP: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the largest entries of each row that together reach the threshold."""
    sorted_RMP, order_RMP = promises_RMP.sort(dim=-1, descending=True, stable=True)
    before_RMP = sorted_RMP.cumsum(-1) - sorted_RMP
    is_wanted_RMP = before_RMP < threshold * promises_RMP.sum(-1, keepdim=True)
    return torch.zeros_like(is_wanted_RMP).scatter(-1, order_RMP, is_wanted_RMP)


def _antidiagonal(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, scale: float, how: SparsePrefill) -> torch.Tensor:
    size, stride, tokens = how.block_tokens, how.stride, len(keys_TD)
    before = tokens - queries_RQD.shape[1]
    behind = -tokens % size
    queries_RQD = pad(queries_RQD, (0, 0, before % size, behind))
    keys_TD = pad(keys_TD, (0, 0, 0, behind))
    coarse_keys = keys_TD.unflatten(0, (-1, stride)).flatten(1)
    coarse_queries = queries_RQD.unflatten(1, (-1, stride)).flip(2).flatten(2) * (scale / stride)
    a_block = size // stride
    promises_RMP = coarse_keys.new_zeros(len(queries_RQD), coarse_queries.shape[1] // a_block, len(keys_TD) // size)
    for first in range(0, promises_RMP.shape[1], _ROWS):
        rows = slice(first * a_block, (first + _ROWS) * a_block)
        place = before // size * a_block + torch.arange(coarse_queries.shape[1], device=keys_TD.device)[rows]
        end = int(place[-1]) + 1
        scores = coarse_queries[:, rows] @ coarse_keys[:end].T
        read = scores.masked_fill(torch.arange(end, device=keys_TD.device) > place[:, None], -torch.inf).softmax(-1)
        is_own = (place * stride + stride > before) & (place * stride < tokens)  # groups of padding count as 0
        by_block = (read * is_own[:, None]).unflatten(2, (-1, a_block)).sum(-1).unflatten(1, (-1, a_block)).sum(2)
        promises_RMP[:, first : first + _ROWS, : by_block.shape[2]] = by_block
    return promises_RMP


def _vertical_slash(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, scale: float, how: SparsePrefill) -> torch.Tensor:
    size, tokens = how.block_tokens, len(keys_TD)
    before = tokens - queries_RQD.shape[1]
    first, blocks = before // size, -(-tokens // size)
    last_RLD = queries_RQD[:, -min(size, queries_RQD.shape[1]) :]
    length = last_RLD.shape[1]
    seen_LT = torch.ones(length, tokens, dtype=torch.bool, device=keys_TD.device).tril(tokens - length)
    read_RLT = (last_RLD @ keys_TD.T * scale).masked_fill(~seen_LT, -torch.inf).softmax(-1)
    by_column_RP = pad(read_RLT.sum(1), (0, -tokens % size)).unflatten(1, (-1, size)).sum(-1)
    distance_LT = (tokens - length + torch.arange(length, device=keys_TD.device)[:, None]) - torch.arange(tokens, device=keys_TD.device)
    by_diagonal_RP = torch.zeros_like(by_column_RP).index_add(1, (distance_LT.clamp(min=0) // size).flatten(), read_RLT.flatten(1))
    rows_M1 = torch.arange(first, blocks, device=keys_TD.device)[:, None]
    back_MP = (rows_M1 - torch.arange(blocks, device=keys_TD.device)).clamp(min=0)
    return torch.maximum(by_column_RP[:, None], by_diagonal_RP[:, back_MP])
