"""The first tokens and the last ones (StreamingLLM, Xiao et al. 2024, ICLR, arXiv 2309.17453).

Departure: positions stay what they were; StreamingLLM counts them within the cache, so that they stay below the trained length, as they do
with `EvictionPolicy.rerotate`.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class StreamingLLM(Score):
    """The later the more important; the first are kept by `EvictionPolicy.sinks`."""

    def __call__(self, held: ScoreInputs) -> torch.Tensor:
        return held.position_HT.double()
