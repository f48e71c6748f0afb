"""Keep the first tokens (attention sinks) and the last ones (StreamingLLM, Xiao et al. 2024, ICLR, arXiv 2309.17453).

Departure: positions stay those of the text. StreamingLLM counts them within the cache, so that they stay below the trained length; so does
`EvictionPolicy.rerotate`.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class StreamingLLM(Score):
    """The score: the later, the more important; the first tokens are kept by `EvictionPolicy.sinks`."""

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return inputs.position_HT.double()
