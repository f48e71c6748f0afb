"""H2O: keeps the tokens with the most attention so far, and the last tokens (Zhang et al. 2023, NeurIPS, arXiv 2306.14048).

    importance_i = sum over queries q of A[q, i], averaged over the query heads that share a key

Raw sums favour early tokens, which more queries could read; `by_query` divides by the number of queries, like kvpress' ObservedAttention.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class H2O(Score):
    """The H2O score over cached tokens; the attention of evicted tokens is lost."""

    by_query: bool = False
    recent_share: float = 0.5
    """Share of the budget for the last tokens."""

    @property
    def sums_attention(self) -> bool:
        return True

    def recent(self, budget: int) -> int:
        return int(self.recent_share * budget)

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return inputs.mass_HT / (inputs.seen - inputs.position_HT) if self.by_query else inputs.mass_HT
