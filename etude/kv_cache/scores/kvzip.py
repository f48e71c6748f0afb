"""Keep what the model attends to when it repeats the context (KVzip, Kim et al. 2025, NeurIPS, arXiv 2505.23416; by its code).

    importance_i = the largest attention that any token of the context, read once more after it, gives to slot i, over the query heads of
                   its key

The context is read again in chunks, each after `ask`: the tokens of `ASK`, none without a tokenizer (`for_tokenizer`).
Departures: no last tokens of the chunk before are quoted; a chunk reads, and ranks, the whole cache, not its own slots alone, which differs
for a context of several chunks. Nothing is evicted while tokens are generated, since nothing is read again then.
Cost: about two more prompts in time; the whole context is in memory until then.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Reconstruction, Score

ASK = "\n\nRepeat the previous context exactly.\n\n"


@dataclass(frozen=True)
class KVzip(Score):
    """The score, and how the context is read again (`etude.kv_cache.kvzip_reconstruct`)."""

    ask: tuple[int, ...] = ()
    chunk_tokens: int = 2048

    @property
    def reconstruction(self) -> Reconstruction:
        return self

    def for_tokenizer(self, tokenizer: Any) -> "KVzip":
        return replace(self, ask=tuple(tokenizer(ASK, add_special_tokens=False)["input_ids"]))

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return inputs.mass_HT
