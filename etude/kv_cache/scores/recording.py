"""Not a score: keeps all that some scores go by, for a prompt that is read once and then cut by many policies."""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class Recording(Score):
    """Under a policy that keeps everything."""

    scores: tuple[Score, ...]
    """Those that are to go by it."""

    @property
    def window(self) -> int:
        return max((score.window for score in self.scores), default=0)

    @property
    def sums_attention(self) -> bool:
        return any(score.sums_attention for score in self.scores)

    @property
    def moments_from(self) -> int | None:
        return next((score.moments_from for score in self.scores if score.moments_from is not None), None)

    def __call__(self, held: ScoreInputs) -> torch.Tensor:
        raise NotImplementedError("a recording ranks nothing")
