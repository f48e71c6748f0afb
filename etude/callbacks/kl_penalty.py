"""KL penalty: add to the loss a coefficient times KL(now || start) on own tokens; start is the model at the start of practice.

    loss = policy loss + kl_coef · k3 estimate of KL(now || start)        (`etude.learn.losses.kl`)

It covers the tokens of all groups, also those without an advantage; masked attempts are left out. Identity: kl_coef 0.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes

if TYPE_CHECKING:
    from etude.learn.example import Example
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class KLPenaltySettings:
    """KL penalty against the reference model (the model at the start of practice)."""

    kl_coef: float
    """Coefficient (TRL: beta), above 0."""

    def __post_init__(self) -> None:
        if self.kl_coef <= 0:
            raise UserError(f"kl_penalty.kl_coef must be above 0, got {self.kl_coef}: leave kl_penalty out for none")


class KLPenalty(Callback):
    """Adds the anchor stream to the learner, and the start's log-probs to every example."""

    name, Settings = "kl_penalty", KLPenaltySettings
    excludes = (
        Excludes("learn.method", "set it to policy_gradient", "is on the tokens of the policy gradient", allowed=("policy_gradient",)),
        Excludes(
            "learn.scale_lr_by_informative_groups",
            "set it to false",
            "needs no signal, while a rate by signal would make its pull small where few groups have some",
        ),
    )

    def start(self, run: "PracticeRun") -> None:
        from etude.learn.losses import kl

        self.learner = run.learner
        run.add_reference()
        run.add_stream("anchor", kl, self.settings.kl_coef)

    def on_examples(self, batch: RolloutBatch, examples: "list[list[Example]]") -> "list[list[Example]]":
        anchored = [replace(each, anchor=(1.0,) * len(each.completion)) for row in examples for each in row]
        known = iter(self.learner.with_reference(anchored))
        return [[next(known) for _ in row] for row in examples]
