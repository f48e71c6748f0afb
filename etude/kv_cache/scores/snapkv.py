"""SnapKV: keeps the tokens that the last queries attend to, smoothed along the text (Li et al. 2024, NeurIPS, arXiv 2404.14469).

importance_i = mean over the query heads of a key of avgpool_i sum over the last w queries q of A[q, i]
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class SnapKV(Score):
    """The SnapKV score. The tokens of the window itself are kept and excluded from pooling."""

    queries: int = 32
    pool: int = 5
    """Number of slots over which importance is averaged; 1: no pooling."""

    @property
    def window(self) -> int:
        return self.queries

    def recent(self, budget: int) -> int:
        return min(self.queries, budget // 2)

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        is_past_HT = inputs.position_HT < inputs.seen - self.queries
        read_HT = inputs.attention(self.queries).sum(2).mean(1) * is_past_HT
        return torch.nn.functional.avg_pool1d(read_HT[None], self.pool, stride=1, padding=self.pool // 2)[0, :, : read_HT.shape[1]]
