"""What every score is: a function from what a layer holds of a row to the importance [H, T] of its tokens; higher is kept longer.

Empty slots and the tokens that are kept anyway (`EvictionPolicy.sinks`, `recent`) may get any importance. Rows of a batch do not influence
each other, up to rounding: of two slots of the same importance to 16 bits (`etude.kv_cache.eviction`) a batch may keep the other one.
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
    """Ranks the tokens of a row."""

    @property
    def sums_attention(self) -> bool:
        """Whether it needs the attention that each slot received so far; attention is then computed by products and softmax."""
        return False

    @property
    def moments_from(self) -> int | None:
        """The first of a row's tokens whose queries count for their mean and covariance; None: it needs neither."""
        return None

    @property
    def window(self) -> int:
        """Last queries of a row that it needs."""
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
        """Whether importance depends on the budget."""
        return False

    def recent(self, budget: int) -> int:
        """Return how many of the last tokens are kept whatever their importance."""
        return 0

    @abstractmethod
    def __call__(self, inputs: ScoreInputs) -> torch.Tensor: ...
