"""Control: random importance, a function only of layer, head and position."""

from dataclasses import dataclass

import numpy as np
import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score
from etude.randomness import seed_for, uniforms


@dataclass(frozen=True)
class Random(Score):
    """The random score, in [0, 1)."""

    seed: int = 0

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        position_HT = inputs.position_HT.cpu().numpy()
        keys_H1 = np.array([[seed_for(self.seed, "importance", inputs.layer, head)] for head in range(len(position_HT))], dtype=np.uint64)
        drawn_HT = uniforms(np.broadcast_to(keys_H1, position_HT.shape), position_HT)
        return torch.from_numpy(drawn_HT).to(inputs.position_HT.device)
