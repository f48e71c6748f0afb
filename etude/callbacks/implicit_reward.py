"""Add token advantages from an implicit process reward (PRIME, arXiv 2502.01456): a second model that learns which answers are right.

The formulas and the departures are in `etude.learn.implicit_reward`. Identity: a second model that has learned nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.learn.optimizer import OptimizerSettings
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class ImplicitRewardSettings:
    """Implicit process reward (PRIME)."""

    coef: float
    """Weight of its advantage, which is added to the outcome's; PRIME uses 1."""
    beta: float = 0.05
    """Scale of log-likelihood differences, above 0."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=1e-5))

    def __post_init__(self) -> None:
        if self.coef <= 0:
            raise UserError(f"implicit_reward.coef must be above 0, got {self.coef}: leave implicit_reward out for none")
        if self.beta <= 0:
            raise UserError(f"implicit_reward.beta must be above 0, got {self.beta}")
        self.optimizer.check("implicit_reward.optimizer")


class ImplicitRewardCallback(Callback):
    """Computes token rewards before the update, and trains the second model after it."""

    name, Settings = "implicit_reward", ImplicitRewardSettings
    unit_rewards = "learns a probability"
    excludes = (
        Excludes("rollout.search.method", "set it to samples", "values every token of one answer", values=("refine",)),
        Excludes("learn.method", "set it to policy_gradient", "adds to token advantages", allowed=("policy_gradient",)),
        Excludes("learn.loss", "set it to ppo or cispo", "tells tokens apart, which one ratio undoes", values=("gspo",)),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        self.settings.optimizer.check_length("implicit_reward.optimizer", settings["steps"], "steps")

    def start(self, run: "PracticeRun") -> None:
        from etude.learn.implicit_reward import ImplicitReward

        self.model = ImplicitReward(
            run.model,
            self.settings.beta,
            self.settings.optimizer.over(run.settings.steps),
            dtype=run.place.dtype,
            batch_tokens=run.settings.machine.max_tokens_per_microbatch,
        )

    def before_update(self, batch: RolloutBatch) -> Metrics:
        from etude.learn.implicit_reward import token_returns, within_task_auc

        rewards, coef = self.model.rewards(batch.groups), self.settings.coef
        returns = token_returns(rewards, batch.rewards)
        batch.token_advantages.append([[tuple(coef * value for value in own) for own in row] for row in returns])
        return {"implicit_reward/auc_within_task": within_task_auc(rewards, batch.rewards)}

    def after_update(self, batch: RolloutBatch) -> Metrics:
        return {f"implicit_reward/{name}": value for name, value in self.model.update(batch.groups, batch.rewards).items()}

    def state_dict(self) -> "dict[str, torch.Tensor]":
        return self.model.state_dict()

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.model.load_state_dict(tensors)
