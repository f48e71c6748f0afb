"""Settings of self-training; free of torch, so that they are read and checked without it."""

from dataclasses import dataclass, field
from typing import Literal

from etude.decoding.settings import READS, ReliableDecoding
from etude.errors import UserError


@dataclass(frozen=True)
class SelfTraining:
    """Self-training: which of the model's own decoded answers it learns from."""

    decoding: ReliableDecoding = field(default_factory=lambda: ReliableDecoding("integrative"))
    """How an answer is decoded from attempts, which rollout.sampling samples."""
    by: Literal["answers", "tokens"] = "answers"
    """Confidence of an answer: `answers` = share of the attempts that give it; `tokens` = mean agreement of its tokens (only joint
    answers)."""
    min_share: float = 0.0
    """Leave out tasks whose answer has less confidence, in [0, 1]; 0 = none."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_share <= 1.0:
            raise UserError(f"self_training.min_share must be in [0, 1], got {self.min_share}")

    def check(self, num_samples: int) -> None:
        """Raise UserError for settings that decode no answer from `num_samples` attempts."""
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
