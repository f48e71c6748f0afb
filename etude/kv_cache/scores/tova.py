"""TOVA: keeps the tokens that the last query attends to, by the mean over a layer's heads (Oren et al. 2024, EMNLP, arXiv 2401.06104)."""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class TOVA(Score):
    """The TOVA score."""

    @property
    def window(self) -> int:
        return 1

    def recent(self, budget: int) -> int:
        return 1

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        read_HT = inputs.attention(1)[:, :, -1].mean(1)
        return read_HT.mean(0).expand_as(read_HT)
