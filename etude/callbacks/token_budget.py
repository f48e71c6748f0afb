"""End practice after the step in which a number of sampled tokens is reached, whatever `steps` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import at_least
from etude.training.callback import Callback, Decision, Metrics


@dataclass(frozen=True)
class TokenBudgetSettings:
    """Token budget."""

    tokens: int
    """Practice ends after the step that reaches this many sampled tokens, even if steps are left."""

    def __post_init__(self) -> None:
        at_least("token_budget.tokens", self.tokens, 1)

    @property
    def phrase(self) -> str:
        """The model card's phrase for it."""
        return f"until {self.tokens:,} tokens were sampled at the latest"


class TokenBudget(Callback):
    """Counts `sampled_tokens` of all steps."""

    name, Settings = "token_budget", TokenBudgetSettings

    def decide(self, step: int, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, is_last: bool) -> tuple[Decision, Metrics]:
        spent = row["sampled_tokens"] + sum(each["sampled_tokens"] for each in history)
        return Decision(stop=spent >= self.settings.tokens), {}
