"""End practice with the step in which it has sampled a number of tokens, whatever `steps` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etude.errors import at_least
from etude.training.callback import Callback, Decision, Metrics


@dataclass(frozen=True)
class TokenBudgetSettings:
    """Token budget."""

    tokens: int
    """Practice ends with the step in which it has sampled so many tokens, though there were more steps."""

    def __post_init__(self) -> None:
        at_least("token_budget.tokens", self.tokens, 1)

    @property
    def phrase(self) -> str:
        """What the model's card says of it."""
        return f"until {self.tokens:,} tokens were sampled at the latest"


class TokenBudget(Callback):
    """Counts `sampled_tokens` of all steps."""

    name, Settings = "token_budget", TokenBudgetSettings

    def decide(self, step: int, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, is_last: bool) -> tuple[Decision, Metrics]:
        spent = row["sampled_tokens"] + sum(each["sampled_tokens"] for each in history)
        return Decision(stop=spent >= self.settings.tokens), {}
