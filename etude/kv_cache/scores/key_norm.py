"""Keys of small norm are read most (Devoto et al. 2024, EMNLP, arXiv 2406.11430): importance is minus the norm."""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class KeyNorm(Score):
    """-||k||."""

    def __call__(self, held: ScoreInputs) -> torch.Tensor:
        return -held.keys_HTD.float().norm(dim=-1)
