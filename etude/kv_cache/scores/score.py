"""What every score is.

A score is called with what a layer holds of a row and gives its importance [H, T], higher is kept longer; it need not mind empty slots,
nor the tokens that are kept anyway (`Policy.sinks`, `recent`). All do the same for a row whatever stands beside it in a batch,
up to rounding: of two slots that are as important as each other to 16 bits (`etude.kv_cache.policy`) a batch may keep the other one.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from etude.kv_cache.held import Held


@dataclass(frozen=True)
class Score(ABC):
    """Held → importance."""

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
    def replays(self) -> bool:
        """Whether a prompt is given to the model once more behind itself before anything of it is dropped (`etude.kv_cache.replay`)."""
        return False

    @property
    def goes_by_budget(self) -> bool:
        """Whether importance is another for another budget."""
        return False

    def recent(self, budget: int) -> int:
        """How many of the last tokens are kept whatever their importance."""
        return 0

    @abstractmethod
    def __call__(self, held: Held) -> torch.Tensor: ...
