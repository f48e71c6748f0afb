"""A step's groups with their rewards: what samplers return, the ledger keeps and learning takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from etude.rollouts.attempts import Group
from etude.tasks.reward import Reward

TokenAdvantages = Sequence[Sequence[tuple[float, ...]]]
"""An advantage for every own token, by group and attempt."""


@dataclass
class RolloutBatch:
    """The attempts of a step."""

    step: int
    """Counted from 1."""
    groups: list[Group]
    rewards: list[list[Reward]]
    """One for each attempt, by group, as the reward gave them; logged, never changed."""
    metrics: dict[str, Any]
    """What was counted on the way: judged, timed out, crashed."""
    seconds: dict[str, float]
    """`rollout_seconds` and `feedback_seconds`, when the step was sampled."""
    num_synthetic: int = 0
    """How many of the groups, the last ones, are at tasks that the model wrote, or at writing them."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What callbacks decided in the rollout, by their names; JSON."""
    is_from_ledger: bool = False
    shaped_rewards: list[list[Reward]] = field(default_factory=list)
    """The rewards that advantages are computed from; those of the reward until a callback changes them."""
    token_advantages: list[TokenAdvantages] = field(default_factory=list)
    """Advantages that are added to those of the rewards."""
    masked: list[list[bool]] = field(default_factory=list)
    """Whether an attempt enters no loss, by group."""
    advantages: TokenAdvantages | None = None
    """What the policy gradient weighs own tokens with; None for other methods."""

    @property
    def given(self) -> slice:
        """The groups at the tasks that the step was given."""
        return slice(len(self.groups) - self.num_synthetic)

    @property
    def own_tokens(self) -> int:
        """Tokens that the model wrote, of all attempts."""
        return sum(attempt.num_own_tokens for group in self.groups for attempt in group.attempts)

    @property
    def sampled_tokens(self) -> int:
        """Tokens that were sampled: attempts of a search share beginnings."""
        return int(self.metrics.get("sampled_tokens", self.own_tokens))

    def begin_update(self) -> None:
        """Forget what callbacks made of the rewards."""
        self.shaped_rewards = [list(row) for row in self.rewards]
        self.token_advantages = []
        self.masked = [[False] * len(row) for row in self.rewards]
