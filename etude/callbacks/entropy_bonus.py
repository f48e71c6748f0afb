"""Entropy bonus: subtract from the loss a coefficient times the entropy of the policy's own tokens, with gradient.

    loss = policy loss - c_k · (entropy of own tokens with an advantage, averaged as their policy loss is)

constant   c_k = entropy_coef
by target  c_k = b_k if e_k <= target, else 0        b_1 = entropy_coef
           b_(k+1) = b_k + delta if e_k < target, max(0, b_k - delta) if e_k > target

e_k is the entropy of step k's attempts in nats a token, before the update: minus the mean log-prob of sampled tokens, an unbiased estimate.
The rule by target is Skywork-OR1's (arXiv 2505.22312, adaptive entropy control, with b_1 = 0, delta = 0.005 and a target of 0.2).
Departure: b does not fall below 0. Identity: entropy_coef 0 without a target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.rollouts.batch import RolloutBatch
from etude.settings.unused import ANY, Read
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class EntropyBonusSettings:
    """Entropy bonus of the policy gradient."""

    entropy_coef: float = 0.0
    """Coefficient; with a target, that of the first step."""
    target: float | None = None
    """Target entropy in nats per token: the bonus applies only to steps with less, and its coefficient adapts by `delta`; null = constant.
    """
    delta: float = 0.005
    """Change of the coefficient per step, with a target."""

    def __post_init__(self) -> None:
        if self.entropy_coef < 0:
            raise UserError(f"entropy_bonus.entropy_coef must be 0 or more, got {self.entropy_coef}")
        if not self.entropy_coef and self.target is None:
            raise UserError("entropy_bonus is worth nothing: set entropy_bonus.entropy_coef above 0, or entropy_bonus.target")
        if self.target is not None and self.target <= 0:
            raise UserError(f"entropy_bonus.target must be above 0 nats a token, got {self.target}: leave it out for a constant bonus")
        if self.delta <= 0:
            raise UserError(f"entropy_bonus.delta must be above 0, got {self.delta}")


class EntropyBonus(Callback):
    """Sets the learner's `entropy_bonus`; its state is the coefficient."""

    name, Settings = "entropy_bonus", EntropyBonusSettings
    panels = (Panel("Entropy bonus", "", {"entropy_bonus/coef": "coefficient"}),)
    reads = (Read(("delta",), "target", ANY),)
    excludes = (
        Excludes("learn.method", "set it to policy_gradient", "changes the loss of the policy gradient", allowed=("policy_gradient",)),
    )

    def __init__(self, settings: EntropyBonusSettings) -> None:
        super().__init__(settings)
        self.coefficient = settings.entropy_coef

    def start(self, run: "PracticeRun") -> None:
        self.run = run

    def before_update(self, batch: RolloutBatch) -> Metrics:
        self.run.learner.entropy_bonus = self.after(self.run.entropy_of(batch))
        return {"entropy_bonus/coef": self.run.learner.entropy_bonus}

    def after(self, entropy: float) -> float:
        """Return c of the step with this entropy, and update the next step's coefficient."""
        now, target = self.coefficient, self.settings.target
        if target is None:
            return now
        if entropy != target:
            self.coefficient = max(0.0, now + (self.settings.delta if entropy < target else -self.settings.delta))
        return now if entropy <= target else 0.0

    def state_dict(self) -> "dict[str, torch.Tensor]":
        import torch

        return {"coefficient": torch.tensor(self.coefficient, dtype=torch.float64)}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.coefficient = float(tensors["coefficient"])
