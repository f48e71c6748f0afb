"""Inputs of a score: the state of one row in a layer, from which importance is computed for eviction.

Shapes: H key/value heads, R query heads that share one, T slots, Q queries, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from etude.kv_cache.moments import Moments
from etude.kv_cache.rotation import Rotation
from etude.kv_cache.slots import Segment


@dataclass(frozen=True)
class ScoreInputs:
    """One row of a layer. Heads with fewer than T slots are padded with empty ones."""

    keys_HTD: torch.Tensor
    values_HTD: torch.Tensor
    position_HT: torch.Tensor
    """The position of each token in its row, from 0, without padding."""
    is_there_HT: torch.Tensor
    mass_HT: torch.Tensor
    """Attention that each slot has received so far (`Score.sums_attention`)."""
    queries_HRQD: torch.Tensor
    """Queries of the row's last tokens, rotated like keys (`Score.window`); empty for a score that needs none."""
    moments: Moments | None
    """Mean and covariance of the queries so far, before rotation (`Score.moments_from`)."""
    seen: int
    """Number of the row's tokens so far, including evicted ones."""
    budget: int
    """Number of tokens that a head may keep."""
    recent: int
    """Number of last tokens that are always kept."""
    scale: float
    """The scale of attention scores."""
    layer: int
    module: Any
    """The attention module of the layer."""
    rotation: Rotation
    known: dict[object, torch.Tensor] = field(default_factory=dict)
    """Results of `once` so far, by function; shared by inputs that differ only in `budget` and `recent`."""

    def once(self, find: Callable[["ScoreInputs"], torch.Tensor]) -> torch.Tensor:
        """Return `find(self)`, computed once; it must not depend on the budget."""
        if find not in self.known:
            self.known[find] = find(self)
        return self.known[find]

    @staticmethod
    def of(segments: Sequence[Segment], **rest: Any) -> "ScoreInputs":
        """Create the inputs of a row from its heads' segments."""
        if len({len(segment) for segment in segments}) == 1:
            stacked = [torch.stack(parts) for parts in zip(*map(Segment.parts, segments), strict=True)]
            is_there_HT = torch.ones_like(stacked[2], dtype=torch.bool)
        else:
            stacked = [pad_sequence(list(parts), batch_first=True) for parts in zip(*map(Segment.parts, segments), strict=True)]
            count_H = torch.tensor([len(segment) for segment in segments], device=stacked[2].device)
            is_there_HT = torch.arange(stacked[2].shape[1], device=count_H.device) < count_H[:, None]
        keys, values, position, mass = stacked
        return ScoreInputs(keys, values, position, is_there_HT, mass, **rest)

    def attention(self, window: int) -> torch.Tensor:
        """Return the attention [H, R, Q, T] of each of the last `window` queries to each slot; 0 for empty slots and later tokens."""
        queries_HRQD = self.queries_HRQD[:, :, -window:]
        scores_HRQT = torch.einsum("hrqd,htd->hrqt", queries_HRQD.float(), self.keys_HTD.float()) * self.scale
        place_Q = self.seen - queries_HRQD.shape[2] + torch.arange(queries_HRQD.shape[2], device=scores_HRQT.device)
        is_read_HQT = self.is_there_HT[:, None] & (self.position_HT[:, None] <= place_Q[:, None])
        return scores_HRQT.masked_fill(~is_read_HQT[:, None], -torch.inf).softmax(-1).nan_to_num()  # a query may have nothing left to read
