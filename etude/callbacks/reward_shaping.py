"""Shape the rewards from which advantages are computed: right attempts that are unlike the rest of the group count more.

The formulas, their sources and the identity settings are in `etude.learn.shaping`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.errors import UserError, check_known
from etude.learn.shaping import SHAPING, shaped
from etude.rollouts.batch import RolloutBatch
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class RewardShapingSettings:
    """Reward shaping: the more ordinary an attempt is in its group, the lower its reward."""

    method: str
    """Measure of how ordinary an attempt is: by log-prob (`unlikeliness`), pairs of tokens (`novelty`) or embeddings (`novelty_embedding`).
    """
    weight: float = 0.25
    """Share of its lead over the group's worst attempt that the most ordinary one may lose, in [0, 1]."""

    def __post_init__(self) -> None:
        check_known("reward_shaping.method", self.method, SHAPING)
        if not 0 <= self.weight <= 1:
            raise UserError(f"reward_shaping.weight must be in [0, 1], got {self.weight}")


class RewardShaping(Callback):
    """Replaces `batch.shaped_rewards`."""

    name, Settings = "reward_shaping", RewardShapingSettings
    excludes = (
        Excludes(
            "learn.method", "set it to policy_gradient", "changes the rewards that advantages come from", allowed=("policy_gradient",)
        ),
        Excludes(
            "learn.advantage", "choose one that compares whole answers", "changes rewards of whole answers", values=("vineppo", "treerl")
        ),
        Excludes("rollout.search.method", "set it to samples", "changes rewards of whole answers", values=("refine",)),
    )

    def start(self, run: "PracticeRun") -> None:
        self.model = run.model

    def before_update(self, batch: RolloutBatch) -> Metrics:
        embeddings_VE = self.model.get_input_embeddings().weight
        batch.shaped_rewards = shaped(batch.groups, batch.shaped_rewards, self.settings.method, self.settings.weight, embeddings_VE)
        return {}
