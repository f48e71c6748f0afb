"""How an optimizer steps, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass

from etude.errors import UserError


@dataclass(frozen=True)
class Optimiser:
    """AdamW with a linear warm-up and a constant or linearly falling rate."""

    learning_rate: float = 1e-5
    warmup_steps: int = 0
    """Updates in which the rate rises from 0. A step of practice makes learn.epochs x learn.updates_per_epoch of them, and none where no
    group has signal and nothing is anchored."""
    decay_steps: int = 0
    """Updates after which the rate has fallen linearly to 0; 0 keeps it constant."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    """Gradients of a larger norm are scaled down to it."""

    def check(self, name: str) -> None:
        """Raise UserError for what no optimizer can do; `name` is what the settings call it."""
        if self.learning_rate <= 0:
            raise UserError(f"{name}.learning_rate must be above 0, got {self.learning_rate}")
        for each in ("warmup_steps", "decay_steps", "weight_decay"):
            if getattr(self, each) < 0:
                raise UserError(f"{name}.{each} must be 0 (off) or more, got {getattr(self, each)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"{name}.betas must lie in [0, 1), got {list(self.betas)}")
        if self.max_gradient_norm <= 0:
            raise UserError(f"{name}.max_gradient_norm must be above 0, got {self.max_gradient_norm}")

    def check_length(self, name: str, updates: int, called: str) -> None:
        """Raise UserError where the rate ends before the `updates` do, which are `called` so."""
        if 0 < self.decay_steps < updates:
            raise UserError(
                f"{name}.decay_steps is {self.decay_steps}, but the run may make {updates} updates ({called}), the last ones at rate 0: "
                f"set it to 0 (a constant rate) or to {updates} or more"
            )

    def rate(self, step: int) -> float:
        """Return the learning rate of update `step` (counted from 0)."""
        rising = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        falling = max(0.0, 1 - step / self.decay_steps) if self.decay_steps else 1.0
        return self.learning_rate * rising * falling
