"""Which own answers are learned from, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, field
from typing import Literal

from etude.decoding.settings import READS, ReliableDecoding
from etude.errors import UserError


@dataclass(frozen=True)
class SelfTraining:
    """Which own answers are learned from."""

    decoding: ReliableDecoding = field(default_factory=lambda: ReliableDecoding("integrative"))
    """How an answer is decoded from attempts; these are drawn by rollout.sampling."""
    by: Literal["answers", "tokens"] = "answers"
    """How sure an answer is: the share of the attempts that give it, or, of joint answers alone, the mean agreement of its tokens."""
    min_share: float = 0.0
    """A task is left out where its answer is less sure than that; 0 leaves none out."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_share <= 1.0:
            raise UserError(f"self_training.min_share must be in [0, 1], got {self.min_share}")

    def check(self, num_samples: int) -> None:
        """Raise UserError for what makes no answer of `num_samples` attempts."""
        method = self.decoding.method
        if not self.decoding.is_on:
            raise UserError(f"self_training.decoding.method is none, which decodes nothing: set it to one of {', '.join(READS)}")
        if "k" in READS[method] and "sampling" in READS[method] and self.decoding.k > num_samples:
            raise UserError(
                f"self_training.decoding.k is {self.decoding.k}, more than the rollout.num_samples {num_samples} attempts that there are: "
                f"set it to {num_samples} or less"
            )
        if self.decoding.stop_agreed:
            raise UserError(
                "self_training.decoding.stop_agreed saves no attempts, since rollout.num_samples are drawn in any case: set it to false"
            )
        if self.by == "tokens" and not method.startswith("integrative"):
            raise UserError(
                f"self_training.by tokens is of answers that are decoded jointly, which {method} does not do: set it to answers, or "
                "self_training.decoding.method to integrative"
            )
