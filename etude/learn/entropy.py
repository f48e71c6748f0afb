"""An entropy bonus: of the loss is taken a coefficient times the entropy of the policy's own tokens, which so has a gradient.

    loss = policy loss - c_k · (entropy of own tokens with credit, averaged as their policy loss is)

constant   c_k = bonus
by target  c_k = b_k where e_k <= target, else 0        b_0 = bonus
           b_(k+1) = b_k + delta where e_k < target, max(0, b_k - delta) where e_k > target

e_k is the entropy of step k's attempts, in nats a token, before anything is learned from them: minus the mean log-prob of what was sampled,
an unbiased estimate. The rule by target is Skywork-OR1's (arXiv 2505.22312, adaptive entropy control, with b_0 = 0, delta = 0.005 and a
target of 0.2). Departure: b does not fall below 0.

Identity: bonus 0 without a target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

from etude.errors import UserError


@dataclass(frozen=True)
class EntropySettings:
    """How much entropy is worth beside credit."""

    bonus: float = 0.0
    """Coefficient, with a target the one to begin with; 0 without a target is off."""
    target: float | None = None
    """Nats a token: the bonus counts only where a step's attempts have less, and grows while they do; None keeps it as it is."""
    delta: float = 0.005
    """How much a step changes the coefficient, with a target."""

    @property
    def is_on(self) -> bool:
        return self.bonus > 0 or self.target is not None

    def __post_init__(self) -> None:
        if self.bonus < 0:
            raise UserError(f"learn.entropy.bonus must be 0 (off) or more, got {self.bonus}")
        if self.target is not None and self.target <= 0:
            raise UserError(f"learn.entropy.target must be above 0 nats a token, got {self.target}: leave it out for a constant bonus")
        if self.delta <= 0:
            raise UserError(f"learn.entropy.delta must be above 0, got {self.delta}")


class EntropyBonus:
    """The coefficient, from step to step."""

    def __init__(self, settings: EntropySettings) -> None:
        self.settings, self.coefficient = settings, settings.bonus

    def after(self, entropy: float) -> float:
        """c of the step whose attempts have this entropy; the next step's follows from it."""
        now, target = self.coefficient, self.settings.target
        if target is None:
            return now
        if entropy != target:
            self.coefficient = max(0.0, now + (self.settings.delta if entropy < target else -self.settings.delta))
        return now if entropy <= target else 0.0

    def state(self) -> "dict[str, torch.Tensor]":
        """The coefficient, for a checkpoint."""
        import torch

        return {"coefficient": torch.tensor(self.coefficient, dtype=torch.float64)}

    def load(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Take over what `state` gave."""
        self.coefficient = float(tensors["coefficient"])
