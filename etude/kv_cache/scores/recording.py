"""Records the inputs of several scores, for a prompt that is read once and evaluated under many policies. It ranks nothing."""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class Recording(Score):
    """The placeholder score of a policy that keeps everything."""

    scores: tuple[Score, ...]
    """The scores that will use the record."""

    @property
    def window(self) -> int:
        return max((score.window for score in self.scores), default=0)

    @property
    def sums_attention(self) -> bool:
        return any(score.sums_attention for score in self.scores)

    @property
    def moments_from(self) -> int | None:
        return next((score.moments_from for score in self.scores if score.moments_from is not None), None)

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        raise NotImplementedError("a recording ranks nothing")
