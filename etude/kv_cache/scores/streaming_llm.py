"""StreamingLLM: keeps the first tokens (attention sinks) and the last ones (Xiao et al. 2024, ICLR, arXiv 2309.17453).

Departure: positions remain those of the text. StreamingLLM counts positions within the cache, so that they stay below the trained length;
`EvictionPolicy.rerotate` does the same.
"""

from dataclasses import dataclass

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score


@dataclass(frozen=True)
class StreamingLLM(Score):
    """The StreamingLLM score: later tokens are more important; `EvictionPolicy.sinks` keeps the first tokens."""

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return inputs.position_HT.double()
