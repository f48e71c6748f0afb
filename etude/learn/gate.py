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
from typing import Any

import torch

from etude.learn.retention_settings import GateSettings

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
