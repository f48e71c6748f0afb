"""Interpolation: after the last step the model goes part of the way back to the start of practice, to keep more of what it knew.

    weights = start + factor · (practised - start)

`factor` is given, or it is the largest one, in hundredths, at which the model is still near the start on other texts:

    KL(start || model) <= max_kl          exact (`etude.evaluation.token_divergence`), nats a token, on the texts of the retention probe

How much a model forgets goes with a divergence from the start, whatever the method ("RL's Razor", arXiv 2509.04259, where it is that on
the new task). So runs that learn by different methods, or by luck faster than others, end at about equal cost.

Half of the way back costs a smaller share of the gain than of the loss (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903; after RL: WARP,
Rame et al. 2024, arXiv 2406.16768, LITI). `etude models interpolate` does the same to two saved models, also by groups of layers.
A run that is resumed with more steps goes on from there. Cost: two copies of the weights; with `max_kl` also two forward passes over the
texts for each of at most eight factors. Identity: factor 1 without `max_kl`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class InterpolationSettings:
    """Interpolation of the practised model with the start of practice."""

    factor: float = 0.5
    """Share of the way from the start to the practised model, in (0, 1]; with max_kl at most this."""
    max_kl: float | None = None
    """Most KL(start || model) on the texts of the retention probe, in nats a token; null = as far as factor says."""

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 1:
            raise UserError(f"interpolation.factor must be in (0, 1], got {self.factor}: 1 is the practised model, and near 0 the start")
        if self.max_kl is not None and not self.max_kl > 0:
            raise UserError(
                f"interpolation.max_kl must be above 0 nats a token, got {self.max_kl}: leave it out to go as far as factor says"
            )


class Interpolation(Callback):
    """Changes the weights after the update of the last step."""

    name, Settings = "interpolation", InterpolationSettings
    excludes = (
        Excludes("learn.lora.rank", "set it to 0", "interpolates all weights"),
        *(Excludes(f"callbacks.{each}", "leave it out", "has to know the last step") for each in ("token_budget", "gate")),
        Excludes("callbacks.collapse.action", "set it to warn", "has to know the last step", values=("stop", "rollback")),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        if self.settings.max_kl is not None and not settings["retention.probe"]:
            raise UserError(
                "interpolation.max_kl is measured on the texts of the retention probe, and retention.probe is false: set it to true"
            )

    def prepare(self, run: "PracticeRun") -> None:
        windows = run.probe.windows if run.probe else []
        if self.settings.max_kl is not None and not windows:
            raise UserError("interpolation.max_kl is measured on the texts of the retention probe, and there are none: set retention.text")
        self.pieces = [(window[:1], window[1:]) for window in windows]

    def start(self, run: "PracticeRun") -> None:
        self.run, self.begun = run, copy.deepcopy(run.model).requires_grad_(False)
        self.found: dict[str, float] = {}

    def after_update(self, batch: RolloutBatch) -> Metrics:
        if batch.step == self.run.settings.steps:
            practised = {name: weight.detach().clone() for name, weight in self.run.model.named_parameters()}
            self.found = {"factor": self.settings.factor}
            if self.settings.max_kl is None:
                self._move(practised, self.settings.factor)
            else:
                self.found = self._go_back(practised, self.settings.max_kl)
        return {}

    def _go_back(self, practised: "Mapping[str, torch.Tensor]", max_kl: float) -> dict[str, float]:
        """Move the model to the largest factor in hundredths whose divergence is allowed, by bisection: it rises along the way."""
        low, high, kl = 0, round(100 * self.settings.factor) + 1, 0.0
        middle = high - 1
        while high - low > 1:
            measured = self._kl_at(practised, middle / 100)
            if measured <= max_kl:
                low, kl = middle, measured
            else:
                high = middle
            middle = (low + high) // 2
        self._move(practised, low / 100)
        return {"factor": low / 100, "kl": kl}

    def _kl_at(self, practised: "Mapping[str, torch.Tensor]", factor: float) -> float:
        from etude.evaluation.token_divergence import token_divergence

        self._move(practised, factor)
        each = [value for piece in token_divergence(self.begun, self.run.model, self.pieces) for value in piece]
        return sum(each) / len(each)

    def _move(self, practised: "Mapping[str, torch.Tensor]", factor: float) -> None:
        import torch

        with torch.no_grad():
            for (name, weight), start in zip(self.run.model.named_parameters(), self.begun.parameters(), strict=True):
                weight.copy_(start.lerp(practised[name], factor))

    def state_dict(self) -> "dict[str, torch.Tensor]":
        import torch

        return {name: torch.tensor(value, dtype=torch.float64) for name, value in self.found.items()}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.found = {name: tensor.item() for name, tensor in tensors.items()}

    def finish(self) -> dict[str, Any] | None:
        return self.found or None

    def sentence(self, found: Mapping[str, Any]) -> str:
        where = f"{found['factor']:.0%} of the way from the start of practice to its last update"
        return f"interpolation: the model is {where}" + (f", {found['kl']:.3f} nats a token from the start" if "kl" in found else "")
