"""Settings of sampling; does not import torch, so that settings are read and checked without it."""

from dataclasses import dataclass
from math import inf

from etude.errors import UserError

LEAST_TEMPERATURE = 0.001
"""The lowest temperature besides 0 (greedy decoding): with less, logits divided by it overflow float32."""


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters.

    Raises UserError for values out of range.
    """

    temperature: float = 1.0
    """0 = greedy decoding, else at least 0.001."""
    top_p: float = 1.0
    """Sample from the smallest set of tokens with this probability mass, in (0, 1]; 1 = off."""
    top_k: int = 0
    """Sample from the k most likely tokens; 0 = off."""
    min_p: float = 0.0
    """Sample from tokens with at least this share of the most likely one's probability, in [0, 1); 0 = off."""

    def __post_init__(self) -> None:
        if self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature < inf:
            raise UserError(f"temperature must be 0 (greedy), or {LEAST_TEMPERATURE} or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise UserError(f"top_k must be 0 (off) or more, got {self.top_k}")
        if not 0 <= self.min_p < 1:
            raise UserError(f"min_p must be in [0, 1), got {self.min_p}")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0

    @property
    def restricts(self) -> bool:
        """Whether some tokens may be excluded."""
        return not self.is_greedy and (self.top_p < 1 or self.top_k > 0 or self.min_p > 0)


GREEDY = Sampling(temperature=0.0)
