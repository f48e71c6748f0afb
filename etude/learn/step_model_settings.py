"""Settings of the step model; free of torch."""

from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class StepModelSettings:
    """Step model: a learned value of unfinished answers."""

    backbone: Literal["policy", "own"] = "policy"
    """Whose hidden states it reads: the present policy's (cheap), or those of a model of its own that is trained as a whole (a second
    model in memory)."""
    model: str | None = None
    """What an own backbone begins as: a bundled name, a folder, a .gguf file or a hub id, of the policy's tokenizer; a copy of the policy
    unless given."""
    trust: float | None = None
    """How far prefixes of independent attempts are worth what it says, from 1 down to 0, where they are worth the mean score of those
    of their group that begin so; unless given, as far as it has shown to know good prefixes from bad: 2 auc - 1 of the last steps."""
    hidden: int = 0
    """Width of the head's hidden layer; 0 makes it linear."""
    targets: Literal["soft", "hard"] = "soft"
    """What it learns: the mean score of what went on from a prefix, or 1 where any of it was right."""
    epochs: int = 8
    """Passes over a step's answers, one update each."""
    replay_steps: int = 0
    """Earlier steps whose answers it learns from again in every pass, by the states that the policy gave them then."""
    learning_rate: float = 1e-3
    """Of the head."""
    backbone_learning_rate: float | None = None
    """Of an own backbone, 1e-5 unless given."""

    def __post_init__(self) -> None:
        if self.trust is not None and not 0 <= self.trust <= 1:
            raise UserError(f"step_model.trust must be in [0, 1], got {self.trust}")
        at_least("step_model.hidden", self.hidden, 0)
        at_least("step_model.epochs", self.epochs, 1)
        at_least("step_model.replay_steps", self.replay_steps, 0)
        for name in ("learning_rate", "backbone_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and rate <= 0:
                raise UserError(f"step_model.{name} must be positive, got {rate}")
        if self.replay_steps and self.backbone == "own":
            raise UserError(
                f"step_model.replay_steps is {self.replay_steps}, but the states of an own backbone change with every update: leave it "
                "out, or set step_model.backbone to policy"
            )
        for name in ("model", "backbone_learning_rate"):
            if getattr(self, name) is not None and self.backbone == "policy":
                raise UserError(
                    f"step_model.{name} is {getattr(self, name)}, but step_model.backbone policy is only read: leave it out, or set the "
                    "backbone to own"
                )
