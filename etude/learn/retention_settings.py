"""What keeps old knowledge, as it is told to a command; free of torch, so that settings are read and checked without it."""

from dataclasses import dataclass, field
from typing import Literal

from etude.errors import UserError, at_least


@dataclass(frozen=True)
class ReplaySettings:
    """General text and answers that are learned from beside practice."""

    path: list[str] = field(default_factory=list)
    """Text files, read in pieces, JSONL with a column `text`, or files of questions with answers, which are imitated as demonstrations."""
    ratio: float = 0.0
    """Replayed tokens for every own token sampled; 0 is off."""
    imitate: float = 1.0
    """Coefficient of their likelihood; 0 leaves the anchor alone."""
    anchor: float = 0.0
    """Coefficient of their divergence from the model that practice began with; 0 is off."""
    window_tokens: int = 128
    """Length of the pieces that a text is read in."""

    def __post_init__(self) -> None:
        for name in ("ratio", "imitate", "anchor"):
            if getattr(self, name) < 0:
                raise UserError(f"retention.replay.{name} must be 0 (off) or more, got {getattr(self, name)}")
        at_least("retention.replay.window_tokens", self.window_tokens, 3)
        if bool(self.path) != bool(self.ratio):
            lacking = (
                "path names files, but retention.replay.ratio is 0"
                if self.path
                else "ratio is set, but retention.replay.path names no file"
            )
            raise UserError(f"retention.replay.{lacking}: set both, or neither")
        if self.ratio and not (self.imitate or self.anchor):
            raise UserError("retention.replay learns nothing with imitate and anchor both 0: set one of them, or ratio to 0")


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
