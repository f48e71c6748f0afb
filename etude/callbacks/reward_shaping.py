"""Shape the rewards that advantages come from: of right attempts, those count more that are unlike what the group does anyway.

The formulas, their sources and the settings at which they equal no shaping stand in `etude.learn.shaping`.
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
    """Reward shaping by how ordinary an attempt is in its group."""

    method: str
    """What is ordinary: by log-prob (`unlikeliness`), by pairs of tokens (`novelty`) or by embeddings (`novelty_embedding`)."""
    weight: float = 0.25
    """The share of its lead on the group's worst attempt that the most ordinary one may lose; in [0, 1]."""

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
