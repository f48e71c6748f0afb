"""KVzip: keeps the tokens with the most attention when the model repeats the context (Kim et al. 2025, NeurIPS, arXiv 2505.23416; by its
code).

    importance_i = the largest attention that any token of the context, read again after it, gives to slot i, over the query heads of its
                   key

The context is read again in chunks, each after `ask`: the tokens of `ASK`, none without a tokenizer (`for_tokenizer`).
Departures: the last tokens of the previous chunk are not quoted; a chunk reads and ranks the whole cache instead of only its own slots,
which differs for a context of several chunks. Nothing is evicted during generation, since nothing is read again then.
Cost: about the time of two more prompts; the whole context is in memory until eviction.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch

from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Reconstruction, Score

ASK = "\n\nRepeat the previous context exactly.\n\n"


@dataclass(frozen=True)
class KVzip(Score):
    """The KVzip score, and how the context is read again (`etude.kv_cache.kvzip_reconstruct`)."""

    ask: tuple[int, ...] = ()
    chunk_tokens: int = 2048

    @property
    def reconstruction(self) -> Reconstruction:
        return self

    def for_tokenizer(self, tokenizer: Any) -> "KVzip":
        return replace(self, ask=tuple(tokenizer(ASK, add_special_tokens=False)["input_ids"]))

    def __call__(self, inputs: ScoreInputs) -> torch.Tensor:
        return inputs.mass_HT
