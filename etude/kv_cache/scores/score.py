"""What every score is.

A score is called with what a layer holds of a row and gives its importance [H, T], higher is kept longer; it need not mind empty slots,
nor the tokens that are kept anyway (`EvictionPolicy.sinks`, `recent`). All do the same for a row whatever stands beside it in a batch,
up to rounding: of two slots that are as important as each other to 16 bits (`etude.kv_cache.eviction`) a batch may keep the other one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch

from etude.kv_cache.score_inputs import ScoreInputs


class Reconstruction(Protocol):
    """How a prompt is read once more, in chunks."""

    @property
    def ask(self) -> tuple[int, ...]:
        """Tokens before each chunk."""

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a chunk."""


@dataclass(frozen=True)
class Score(ABC):
    """ScoreInputs → importance."""

    @property
    def sums_attention(self) -> bool:
        """Whether it needs what each slot has been read so far, for which attention is computed by products and softmax."""
        return False

    @property
    def moments_from(self) -> int | None:
        """From which of a row's tokens on it needs mean and covariance of the queries; None: it does not."""
        return None

    @property
    def window(self) -> int:
        """How many of a row's last queries it needs."""
        return 0

    @property
    def reconstruction(self) -> Reconstruction | None:
        """How a prompt is read once more before anything of it is evicted (`etude.kv_cache.kvzip_reconstruct`); None: it is not."""
        return None

    def for_tokenizer(self, tokenizer: Any) -> Self:
        """Return the score with its words as tokens of this tokenizer."""
        return self

    @property
    def goes_by_budget(self) -> bool:
        """Whether importance is another for another budget."""
        return False

    def recent(self, budget: int) -> int:
        """How many of the last tokens are kept whatever their importance."""
        return 0

    @abstractmethod
    def __call__(self, held: ScoreInputs) -> torch.Tensor: ...
