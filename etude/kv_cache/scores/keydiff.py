"""KeyDiff: keeps keys that differ most from the others (Park et al. 2025, arXiv 2504.15364).

importance_i = -cos(k_i, mean_j k_j / ||k_j||)
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class KeyDiff(Score):
    """The KeyDiff score, by head, over cached tokens."""

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        keys_HTD = torch.nn.functional.normalize(inputs.keys_HTD.float(), dim=-1) * inputs.is_there_HT[:, :, None]
        mean_H1D = keys_HTD.sum(1, keepdim=True) / inputs.is_there_HT.sum(1)[:, None, None]
        return -torch.nn.functional.cosine_similarity(keys_HTD, mean_H1D, dim=-1)
