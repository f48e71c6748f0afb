"""Settings of sampling; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass
from math import inf

from etude.errors import UserError

LEAST_TEMPERATURE = 0.001
"""The lowest temperature: with less, logits divided by it overflow float32; 0 is greedy."""


@dataclass(frozen=True)
class Sampling:
    """The distribution that tokens are sampled from. Raises UserError for values out of range."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with this mass; in (0, 1], 1 keeps all."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least this share of the likeliest one's probability; in [0, 1), 0 keeps all."""

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
