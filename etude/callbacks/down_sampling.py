"""Down-sampling: sample many attempts of a task, learn from the few whose rewards differ most (PODS, Xu et al. 2025, arXiv 2504.13818).

Sampling is cheap beside learning. Of a group's n attempts, the m with the largest variance of rewards are kept: the k best and the m - k
worst, for the best k (theorem 1 there: some such set has the largest variance of all sets of m). The others have no reward, so advantages
compare the kept ones only, and they enter no loss. Among equal rewards the earlier attempt is kept. Departure: an attempt without a score
is never kept. Identity: num_train of all attempts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from etude.errors import UserError
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.training.callback import Callback, Excludes, Metrics


@dataclass(frozen=True)
class DownSamplingSettings:
    """Learning from the attempts of each group whose rewards differ most (PODS)."""

    num_train: int
    """Attempts of each group that are learned from, 2 or more; rollout.num_samples are sampled."""

    def __post_init__(self) -> None:
        if self.num_train < 2:
            raise UserError(f"down_sampling.num_train must be 2 or more, got {self.num_train}: one attempt cannot be compared")


def most_different(scores: Sequence[float | None], num: int) -> list[int]:
    """Return the places of the `num` scores with the largest variance, in order; all known ones if there are no more.

    >>> most_different([0.0, 1.0, 0.0, 0.5, None, 0.0], 3), most_different([0.0, 1.0, 1.0, 1.0], 3)
    ([0, 1, 2], [0, 1, 2])
    """
    value = {place: score for place, score in enumerate(scores) if score is not None}
    if len(value) <= num:
        return list(value)
    rising = sorted(value, key=lambda place: (value[place], place))
    best_first = sorted(value, key=lambda place: (-value[place], place))
    sets = [rising[: num - best] + best_first[:best] for best in range(num + 1)]
    spread = [float(np.var([value[place] for place in each])) for each in sets]
    return sorted(sets[int(np.argmax(spread))])


class DownSampling(Callback):
    """Takes the reward of the other attempts in `batch.shaped_rewards`, and masks them."""

    name, Settings = "down_sampling", DownSamplingSettings
    excludes = (
        Excludes("rollout.search.method", "set it to samples", "leaves out whole answers", values=("refine",)),
        Excludes("learn.advantage", "choose one that compares whole answers", "leaves out whole answers", values=("vineppo", "treerl")),
        Excludes("learn.method", "set it to policy_gradient", "chooses attempts to compare", allowed=("policy_gradient",)),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        sampled = settings["rollout.num_samples"]
        if self.settings.num_train >= sampled:
            raise UserError(
                f"down_sampling.num_train is {self.settings.num_train} of {sampled} attempts (rollout.num_samples): set it to less, or "
                "sample more"
            )

    def before_update(self, batch: RolloutBatch) -> Metrics:
        kept = [set(most_different([reward.score for reward in row], self.settings.num_train)) for row in batch.shaped_rewards]
        batch.shaped_rewards = [
            [_without_score(reward) if place not in own else reward for place, reward in enumerate(row)]
            for row, own in zip(batch.shaped_rewards, kept, strict=True)
        ]
        batch.masked = [[was or place not in own for place, was in enumerate(row)] for row, own in zip(batch.masked, kept, strict=True)]
        return {f"{self.name}/kept": sum(map(len, kept)) / sum(len(row) for row in batch.rewards)}


def _without_score(reward: Reward) -> Reward:
    return replace(reward, score=None, turn_scores=())
