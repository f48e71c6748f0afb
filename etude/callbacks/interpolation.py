"""Interpolation: after the last step the model goes part of the way back to the start of practice, to keep more of what it knew.

    weights = start + factor · (practised - start)

`factor` is given, or it is the largest one, in hundredths, at which the model is still near the start on other texts:

    KL(start || model) <= max_kl          exact (`etude.evaluation.token_divergence`), nats a token, on the texts of the retention probe

It is found by bisection, so it is the largest if the divergence rises along the way. Forgetting follows a divergence from the start ("RL's
Razor", arXiv 2509.04259, where it is that on the new task; that the one on a general text stands for it is our assumption). So runs that
learn by different methods, or by luck faster than others, end at about equal cost.

Half of the way back costs a smaller share of the gain than of the loss (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903; after RL: WARP,
Rame et al. 2024, arXiv 2406.16768, LITI). `etude models interpolate` does the same to two saved models, also by groups of layers.
Checkpoints keep the practised weights; the saved model has the interpolated ones. Cost: two copies of the weights; with `max_kl` also two
forward passes over the texts for each of at most eight factors. Identity: factor 1 without `max_kl`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.training.callback import Callback, Excludes

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class InterpolationSettings:
    """Interpolation of the practised model with the start of practice."""

    factor: float | None = None
    """Share of the way from the start to the practised model, in (0, 1]; with max_kl at most this. null = 0.5, or 1 with max_kl."""
    max_kl: float | None = None
    """Most KL(start || model) on the texts of the retention probe, in nats a token; null = as far as factor says."""

    def __post_init__(self) -> None:
        if self.factor is not None and not 0 < self.factor <= 1:
            raise UserError(f"interpolation.factor must be in (0, 1], got {self.factor}: 1 is the practised model, and near 0 the start")
        if self.max_kl is not None and not self.max_kl > 0:
            raise UserError(
                f"interpolation.max_kl must be above 0 nats a token, got {self.max_kl}: leave it out to go as far as factor says"
            )
        if self.max_kl is not None and self.most < 0.01:
            raise UserError(f"interpolation.factor must be at least 0.01 with max_kl, which goes by hundredths, got {self.factor}")

    @property
    def most(self) -> float:
        """The factor, or the largest one that may be found."""
        return self.factor if self.factor is not None else 0.5 if self.max_kl is None else 1.0

    @property
    def phrase(self) -> str:
        """Say in a model card what practice's weights went through."""
        return "interpolated with the start of practice"


class Interpolation(Callback):
    """Changes the weights in `after_practice`."""

    name, Settings = "interpolation", InterpolationSettings
    excludes = (Excludes("learn.lora.rank", "set it to 0", "interpolates all weights"),)

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
        self.model, self.begun = run.model, copy.deepcopy(run.model).requires_grad_(False)

    def after_practice(self) -> None:
        practised = {name: weight.detach().clone() for name, weight in self.model.named_parameters()}
        if self.settings.max_kl is None:
            self.found = {"factor": self.settings.most}
        else:
            self.found = self._largest(practised, self.settings.max_kl)
        self._move(practised, self.found["factor"])

    def _largest(self, practised: "Mapping[str, torch.Tensor]", max_kl: float) -> dict[str, float]:
        """Return the largest factor in hundredths whose divergence is allowed, and that divergence, by bisection; 0 is the start."""
        low, kl = 0, 0.0
        middle = int(100 * self.settings.most + 1e-9)
        high = middle + 1
        while high - low > 1:
            measured = self._kl_at(practised, middle / 100)
            if measured <= max_kl:
                low, kl = middle, measured
            else:
                high = middle
            middle = (low + high) // 2
        return {"factor": low / 100, "kl": kl}

    def _kl_at(self, practised: "Mapping[str, torch.Tensor]", factor: float) -> float:
        from etude.evaluation.token_divergence import token_divergence

        self._move(practised, factor)
        return fmean(value for piece in token_divergence(self.begun, self.model, self.pieces) for value in piece)

    def _move(self, practised: "Mapping[str, torch.Tensor]", factor: float) -> None:
        import torch

        with torch.no_grad():
            for (name, weight), start in zip(self.model.named_parameters(), self.begun.parameters(), strict=True):
                weight.copy_(start.lerp(practised[name], factor))

    def finish(self) -> dict[str, Any]:
        return self.found

    def sentence(self, found: Mapping[str, Any]) -> str:
        if not found["factor"]:
            return "interpolation: a hundredth of the way is beyond interpolation.max_kl: the model is the start of practice"
        where = f"{found['factor']:.0%} of the way from the start of practice to its last update"
        return f"interpolation: the model is {where}" + (f", {found['kl']:.3f} nats a token from the start" if "kl" in found else "")
