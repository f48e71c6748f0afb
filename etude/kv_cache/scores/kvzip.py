"""What the model reads of a context when it is to say it again (KVzip, Kim et al. 2025, NeurIPS, arXiv 2505.23416; by its code).

    importance_i = the largest attention that any token of the context, given once more behind it, gives to slot i, over the query heads of
                   its key

The context is given in chunks, each behind `ask`: the tokens of `ASK`, none unless a tokenizer is there to make them.
Departures: no last tokens of the chunk before are quoted, and a chunk reads, and ranks, all that is held, not its own slots alone, which is
another thing for a context of several chunks. Nothing is dropped while tokens are generated, since nothing is replayed then.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Reconstruction, Score

ASK = "\n\nRepeat the previous context exactly.\n\n"


@dataclass(frozen=True)
class KVzip(Score):
    """It costs about twice a prompt more, and holds all of it until then."""

    ask: tuple[int, ...] = ()
    chunk_tokens: int = 2048

    @property
    def reconstruction(self) -> Reconstruction:
        return self

    def for_tokenizer(self, tokenizer: Any) -> "KVzip":
        return replace(self, ask=tuple(tokenizer(ASK, add_special_tokens=False)["input_ids"]))

    def __call__(self, held: ScoreInputs) -> torch.Tensor:
        return held.mass_HT
