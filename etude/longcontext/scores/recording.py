"""Not a score: keeps all that any score goes by, for a prompt that is read once and then cut by many policies."""

from dataclasses import dataclass

import torch

from etude.longcontext.held import Held
from etude.longcontext.scores.score import Score


@dataclass(frozen=True)
class Recording(Score):
    """Under a policy that keeps everything."""

    queries: int = 64
    """Last ones; a window of more can't be had."""

    @property
    def window(self) -> int:
        return self.queries

    @property
    def sums_attention(self) -> bool:
        return True

    @property
    def keeps_moments(self) -> bool:
        return True

    def __call__(self, held: Held) -> torch.Tensor:
        raise NotImplementedError("a recording ranks nothing")
