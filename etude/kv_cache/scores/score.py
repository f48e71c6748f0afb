"""The base class of scores: functions from a row's state in a layer to the importance [H, T] of its tokens; higher is kept longer.

Empty slots and tokens that are always kept (`EvictionPolicy.sinks`, `recent`) may get any importance. Rows of a batch do not influence each
other, up to rounding: if two slots have the same importance to 16 bits (`etude.kv_cache.eviction`), the batch may decide which is kept.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from etude.kv_cache.score_inputs import ScoreInputs


class Reconstruction(Protocol):
    """How a prompt is read again, in chunks."""

    @property
    def ask(self) -> tuple[int, ...]:
        """Tokens before each chunk."""

    @property
    def chunk_tokens(self) -> int:
        """Number of tokens of a chunk."""


@dataclass(frozen=True)
class Score(ABC):
    """Ranks the tokens of a row."""

    @property
    def sums_attention(self) -> bool:
        """Whether it needs the attention that each slot has received so far; attention is then computed by products and softmax."""
        return False

    @property
    def moments_from(self) -> int | None:
        """The row's first token whose query is included in mean and covariance; None: it needs neither."""
        return None

    @property
    def window(self) -> int:
        """Number of a row's last queries that it needs."""
        return 0

    @property
    def reconstruction(self) -> Reconstruction | None:
        """How a prompt is read again before eviction (`etude.kv_cache.kvzip_reconstruct`); None: it is not."""
        return None

    def for_tokenizer(self, tokenizer: Any) -> Self:
        """Return the score with its texts tokenized by this tokenizer."""
        return self

    @property
    def goes_by_budget(self) -> bool:
        """Whether importance depends on the budget."""
        return False

    def recent(self, budget: int) -> int:
        """Return how many of the last tokens are always kept."""
        return 0

    @abstractmethod
    def __call__(self, inputs: ScoreInputs) -> torch.Tensor: ...
