"""Interpolation: after the last step the model goes part of the way back to the start of practice, to keep more of what it knew.

    weights = start + factor · (practised - start)

Half of the way back costs a smaller share of the gain than of the loss (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903; after RL: WARP,
Rame et al. 2024, arXiv 2406.16768, LITI). `etude models interpolate` does the same to two saved models, also by groups of layers.
A run that is resumed with more steps goes on from there. Cost: a copy of the weights. Identity: factor 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class InterpolationSettings:
    """Interpolation of the practised model with the start of practice."""

    factor: float = 0.5
    """Share of the way from the start to the practised model, in (0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise UserError(f"interpolation.factor must be in (0, 1], got {self.factor}: 1 is the practised model, and near 0 the start")


class Interpolation(Callback):
    """Changes the weights after the update of the last step."""

    name, Settings = "interpolation", InterpolationSettings
    excludes = (
        Excludes("learn.lora.rank", "set it to 0", "interpolates all weights"),
        *(Excludes(f"callbacks.{each}", "leave it out", "has to know the last step") for each in ("token_budget", "gate")),
        Excludes("callbacks.collapse.action", "set it to warn", "has to know the last step", values=("stop", "rollback")),
    )

    def start(self, run: "PracticeRun") -> None:
        self.model, self.last = run.model, run.settings.steps
        self.begun = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}

    def after_update(self, batch: RolloutBatch) -> Metrics:
        import torch

        if batch.step == self.last:
            with torch.no_grad():
                for name, weight in self.model.named_parameters():
                    weight.copy_(self.begun[name].lerp(weight, self.settings.factor))
        return {}

    def finish(self) -> dict[str, Any]:
        return {"factor": self.settings.factor}

    def sentence(self, found: Mapping[str, Any]) -> str:
        return f"interpolation: the model is {found['factor']:.0%} of the way from the start of practice to its last update"
