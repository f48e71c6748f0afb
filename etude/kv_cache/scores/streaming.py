"""The first tokens and the last ones (StreamingLLM, Xiao et al. 2024, ICLR, arXiv 2309.17453).

Departure: positions stay what they were; StreamingLLM counts them within the cache, so that they stay below the trained length, as they do
with `Policy.rerotate`.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.held import Held
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class Streaming(Score):
    """The later the more important; the first are kept by `Policy.sinks`."""

    def __call__(self, held: Held) -> torch.Tensor:
        return held.position_HT.double()
