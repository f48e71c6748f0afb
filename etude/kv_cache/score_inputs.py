"""What a score computes importance from: all that a layer holds of one row, when some of it is to be evicted.

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
    """One row of a layer. Heads that hold fewer than T slots end in empty ones."""

    keys_HTD: torch.Tensor
    values_HTD: torch.Tensor
    position_HT: torch.Tensor
    """The position of each token among the row's own, from 0; padding has none."""
    is_there_HT: torch.Tensor
    mass_HT: torch.Tensor
    """Attention that a slot has received so far (`Score.sums_attention`)."""
    queries_HRQD: torch.Tensor
    """Queries of the row's last tokens, rotated as keys are (`Score.window`); none for a score that needs none."""
    moments: Moments | None
    """Mean and covariance of the queries so far, before rotation (`Score.moments_from`)."""
    seen: int
    """Tokens of the row so far, evicted ones included."""
    budget: int
    """Tokens that a head may keep."""
    recent: int
    """Last tokens that are kept whatever their importance."""
    scale: float
    """Factor of the products of queries and keys."""
    layer: int
    module: Any
    """The attention module of the layer."""
    rotation: Rotation
    known: dict[object, torch.Tensor] = field(default_factory=dict)
    """Results of `once` so far, by function; shared by inputs that differ in nothing but `budget` and `recent`."""

    def once(self, find: Callable[["ScoreInputs"], torch.Tensor]) -> torch.Tensor:
        """Return `find(self)`, computed once; it must not depend on the budget."""
        if find not in self.known:
            self.known[find] = find(self)
        return self.known[find]

    @staticmethod
    def of(segments: Sequence[Segment], **rest: Any) -> "ScoreInputs":
        """Make the inputs of a row from its heads' segments."""
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
        """Return the attention of each of the last `window` queries to each slot, [H, R, Q, T]; 0 for empty slots and later tokens."""
        queries_HRQD = self.queries_HRQD[:, :, -window:]
        scores_HRQT = torch.einsum("hrqd,htd->hrqt", queries_HRQD.float(), self.keys_HTD.float()) * self.scale
        place_Q = self.seen - queries_HRQD.shape[2] + torch.arange(queries_HRQD.shape[2], device=scores_HRQT.device)
        is_read_HQT = self.is_there_HT[:, None] & (self.position_HT[:, None] <= place_Q[:, None])
        return scores_HRQT.masked_fill(~is_read_HQT[:, None], -torch.inf).softmax(-1).nan_to_num()  # a query may have nothing left to read
