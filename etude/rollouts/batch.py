"""A step's groups with their rewards: samplers return it, the ledger stores it, and learning reads it."""

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
    """One per attempt, by group, as the reward returned them; logged, never changed."""
    metrics: dict[str, Any]
    """Counts of the rollout: judged, timed out, crashed."""
    seconds: dict[str, float]
    """`rollout_seconds` and `feedback_seconds` of the original sampling."""
    num_synthetic: int = 0
    """Number of groups, the last ones, whose tasks the model wrote, or which write them."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Decisions of callbacks in the rollout, by their names; JSON."""
    is_from_ledger: bool = False
    shaped_rewards: list[list[Reward]] = field(default_factory=list)
    """The rewards from which advantages are computed; equal to the rewards until a callback changes them."""
    token_advantages: list[TokenAdvantages] = field(default_factory=list)
    """Advantages to add to those of the rewards."""
    masked: list[list[bool]] = field(default_factory=list)
    """Whether an attempt is left out of all losses, by group."""
    advantages: TokenAdvantages | None = None
    """The policy gradient's weights of own tokens; None for other methods."""

    @property
    def given(self) -> slice:
        """The groups at the step's given tasks."""
        return slice(len(self.groups) - self.num_synthetic)

    @property
    def own_tokens(self) -> int:
        """Number of tokens that the model wrote, over all attempts."""
        return sum(attempt.num_own_tokens for group in self.groups for attempt in group.attempts)

    @property
    def sampled_tokens(self) -> int:
        """Number of sampled tokens: attempts of a search share prefixes."""
        return int(self.metrics.get("sampled_tokens", self.own_tokens))

    def begin_update(self) -> None:
        """Discard callbacks' changes of rewards and advantages."""
        self.shaped_rewards = [list(row) for row in self.rewards]
        self.token_advantages = []
        self.masked = [[False] * len(row) for row in self.rewards]
