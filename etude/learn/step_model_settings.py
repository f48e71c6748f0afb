"""Settings of the step model; free of torch."""

from dataclasses import dataclass
from typing import Literal

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class StepModelSettings:
    """Step model: a learned value of unfinished answers."""

    backbone: Literal["policy", "own"] = "policy"
    """Hidden states that it reads: `policy` = the current policy's (cheap); `own` = of a separate model that is trained as a whole (a
    second model in memory)."""
    model: str | None = None
    """`own`: initial backbone: a bundled name, a folder, a .gguf file or a hub id, with the policy's tokenizer; null = a copy of the
    policy."""
    trust: float | None = None
    """Weight of its value for a prefix of independent attempts, in [0, 1]; the rest is the mean score of the group's attempts with that
    prefix. null = 2 auc - 1 of the last steps, by how well it told good prefixes from bad."""
    hidden: int = 0
    """Width of the head's hidden layer; 0 = linear head."""
    targets: Literal["soft", "hard"] = "soft"
    """Target of a prefix: `soft` = mean score of its continuations; `hard` = 1 if any of them was right."""
    epochs: int = 8
    """Passes over a step's answers, one update each."""
    replay_steps: int = 0
    """Earlier steps whose answers are in every pass, with the policy's hidden states of that time; 0 = none."""
    learning_rate: float = 1e-3
    """Learning rate of the head."""
    backbone_learning_rate: float | None = None
    """`own`: learning rate of the backbone; null = 1e-5."""

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
