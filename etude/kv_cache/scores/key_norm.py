"""Key norm: keeps keys of small norm, which get the most attention (Devoto et al. 2024, EMNLP, arXiv 2406.11430).

importance_i = -||k_i||
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class KeyNorm(Score):
    """The key-norm score."""

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return -inputs.keys_HTD.float().norm(dim=-1)
