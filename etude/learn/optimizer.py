"""Settings of an optimizer; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, replace
from math import cos, pi
from typing import Literal

from etude.errors import UserError


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW with linear warmup, then a constant or decaying learning rate."""

    learning_rate: float = 1e-5
    """Peak learning rate."""
    warmup_steps: int = 0
    """Updates over which the rate rises from 0; 0 = none. A practice step makes learn.epochs x learn.minibatches_per_epoch updates, or none
    if no group has signal and nothing else is learned."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """Keep the rate constant, or decay it to 0 linearly or as a half cosine."""
    decay_steps: int | None = None
    """Updates until the rate has decayed to 0; null = as many as the run may make."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    """0 = off."""
    max_grad_norm: float = 1.0
    """Gradient clipping: the largest norm, above 0."""

    def check(self, name: str) -> None:
        """Raise UserError for invalid values; `name` is the section's name in the settings."""
        if self.learning_rate <= 0:
            raise UserError(f"{name}.learning_rate must be above 0, got {self.learning_rate}")
        for each in ("warmup_steps", "weight_decay"):
            if getattr(self, each) < 0:
                raise UserError(f"{name}.{each} must be 0 (off) or more, got {getattr(self, each)}")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise UserError(f"{name}.decay_steps must be 1 or more, got {self.decay_steps}: leave it out for all updates of the run")
        if self.decay_steps is not None and self.lr_scheduler == "constant":
            raise UserError(
                f"{name}.decay_steps is {self.decay_steps}, but {name}.lr_scheduler is constant: set it to linear or cosine, or leave "
                "decay_steps out"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"{name}.betas must lie in [0, 1), got {list(self.betas)}")
        if self.max_grad_norm <= 0:
            raise UserError(f"{name}.max_grad_norm must be above 0, got {self.max_grad_norm}")

    def check_length(self, name: str, updates: int, called: str) -> None:
        """Raise UserError if the schedule ends before the `updates` do; `called` describes their number."""
        if self.decay_steps is not None and self.decay_steps < updates:
            raise UserError(
                f"{name}.decay_steps is {self.decay_steps}, but the run may make {updates} updates ({called}), the last ones at rate 0: "
                f"leave it out, or set it to {updates} or more"
            )

    def over(self, updates: int) -> "OptimizerSettings":
        """Return the settings for a run of at most this many updates: a falling rate without a length falls over all of them."""
        if self.lr_scheduler == "constant" or self.decay_steps is not None:
            return self
        return replace(self, decay_steps=max(1, updates))

    def rate(self, step: int) -> float:
        """Return the learning rate of update `step` (counted from 0).

        Raises ValueError for a falling rate without a length (`over`).
        """
        rising = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return self.learning_rate * rising * self._falling(step)

    def _falling(self, step: int) -> float:
        if self.lr_scheduler == "constant":
            return 1.0
        if self.decay_steps is None:
            raise ValueError("a falling rate needs the number of updates that it falls over")
        left = max(0.0, 1 - step / self.decay_steps)
        return left if self.lr_scheduler == "linear" else (1 - cos(pi * left)) / 2
