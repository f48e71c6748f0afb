"""The gate: may practice go on from the model as it is now, or has that lost too much of what it knew before?

    passes:  accuracy           >= (1 - max_loss) · accuracy before practice
             perplexity         <= (1 + max_perplexity_rise) · perplexity before practice
             KL(start || now)   <= max_divergence                                             where that is set

on the same questions, the same text (`etude.evaluation.retention`) and the same answers (`etude.recipes.divergence`), so that the
comparison is surer than either number is by its interval. The divergence is read on the new task: it tells what questions and text are slow
to show, since forgetting goes with it (Shenfeld et al. 2025, arXiv 2509.04259), and needs no old knowledge to ask for.

What passes is held; where it fails, practice falls back to what was held, and goes on by `action`: as it was (`roll_back`; other random
numbers, so another path), at a lower rate, or with more replay. After `max_falls` of these, or at once by `stop`, it ends with what was
held. It looks behind the last step too, so what a gated run ends with has passed, whatever happened on the way.

Decisions only: what holds a model and brings it back is the recipe's. Identity: every = 0, or a gate that always passes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class GateSettings:
    """When practice may not go on from the model as it is."""

    every: int = 0
    """Steps between measurements of old knowledge, of which the last step always has one; 0 is off."""
    max_loss: float = 0.02
    """Share of the accuracy before practice that may be lost, of the questions in retention.choices or, without any, of the 80 that ship,
    of which two alone are more than 0.02."""
    max_perplexity_rise: float = 0.02
    """Share by which the perplexity before practice may rise. It sees more than some hundred questions do: a model that was at
    +9 % had lost 9 % of what it knew of other questions, while those that its gate asked said nothing (`LOG.md`, 2026-11-27)."""
    max_divergence: float | None = None
    """Nats an answer by which the model may have moved from where practice began, KL(start || now) on tasks that it practises on; none has
    the gate go by old knowledge alone. How far practice moves a model goes by its task: `retention.divergence_n` tells it of a run that is
    known to be sound."""
    divergence_n: int = 64
    """Tasks that are practised on of which an answer of the start tells that divergence."""
    action: Literal["stop", "roll_back", "lower_rate", "raise_replay"] = "roll_back"
    """What follows a fall back to what was held: the end of practice, another try, one at a lower rate, or one with more replay."""
    factor: float = 2.0
    """What `lower_rate` divides the rate by, and `raise_replay` multiplies the ratio of replay by, at every fall."""
    max_falls: int = 3
    """Falls after which practice goes on; the next one ends it."""

    def __post_init__(self) -> None:
        at_least("retention.gate.every", self.every, 0)
        at_least("retention.gate.max_falls", self.max_falls, 0)
        if not 0 <= self.max_loss < 1:
            raise UserError(f"retention.gate.max_loss must be in [0, 1), a share of the accuracy before practice, got {self.max_loss}")
        if self.max_perplexity_rise < 0:
            raise UserError(f"retention.gate.max_perplexity_rise must be 0 or more, a share, got {self.max_perplexity_rise}")
        if self.max_divergence is not None and self.max_divergence <= 0:
            raise UserError(f"retention.gate.max_divergence must be above 0, in nats an answer, or none, got {self.max_divergence}")
        at_least("retention.gate.divergence_n", self.divergence_n, 1)
        if self.factor <= 1:
            raise UserError(f"retention.gate.factor must be above 1, got {self.factor}")


Numbers = Mapping[str, Any]
"""`choice_accuracy`, `perplexity` and `forward_kl`, or some of them."""


class Gate:
    """The gate of one run: what it compares with, and how often it was fallen back."""

    def __init__(self, settings: GateSettings, before: Numbers) -> None:
        """`before` is what was measured before practice."""
        self.settings, self.before = settings, before
        self.falls = 0

    def passes(self, now: Numbers) -> bool:
        """Whether what was measured now is near enough to what was before practice."""
        how, before = self.settings, self.before
        keeps_knowledge = "choice_accuracy" not in before or now["choice_accuracy"] >= (1 - how.max_loss) * before["choice_accuracy"]
        keeps_language = "perplexity" not in before or now["perplexity"] <= (1 + how.max_perplexity_rise) * before["perplexity"]
        keeps_near = how.max_divergence is None or now["forward_kl"] <= how.max_divergence
        return keeps_knowledge and keeps_language and keeps_near

    def fall(self) -> None:
        """Count a fall back."""
        self.falls += 1

    @property
    def is_over(self) -> bool:
        """Whether practice has ended."""
        return self.falls > (0 if self.settings.action == "stop" else self.settings.max_falls)

    @property
    def rate_factor(self) -> float:
        """What the learning rate is multiplied by from now on."""
        return self.settings.factor**-self.falls if self.settings.action == "lower_rate" else 1.0

    @property
    def replay_factor(self) -> float:
        """What the ratio of replay is multiplied by from now on."""
        return self.settings.factor**self.falls if self.settings.action == "raise_replay" else 1.0

    def state(self) -> dict[str, torch.Tensor]:
        return {"falls": torch.tensor(self.falls)}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.falls = int(tensors["falls"])
