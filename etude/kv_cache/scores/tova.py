"""What the last query reads (TOVA, Oren et al. 2024, EMNLP, arXiv 2401.06104): one importance for all heads of a layer, their mean."""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class TOVA(Score):
    """Attention of the row's last token."""

    @property
    def window(self) -> int:
        return 1

    def recent(self, budget: int) -> int:
        return 1

    def __call__(self, held: ScoreInputs) -> torch.Tensor:
        read_HT = held.attention(1)[:, :, -1].mean(1)
        return read_HT.mean(0).expand_as(read_HT)
