"""Use a step model on scored attempts: its targets, rewards with its values, and metrics of its predictions.

Predictions are measured with values from before it learned from these attempts, at the middle boundary of each attempt's steps:

brier    mean (V - score)², compared with that of the mean score of earlier attempts, which does not depend on the attempt
auc      for two attempts with different scores, how often the higher V has the higher score, ties half: 1/2 by chance. Over all attempts of
         a step it also shows whether V separates hard tasks from easy ones; within the attempts at a task, good prefixes from bad ones,
         where value models did hardly better than chance (VinePPO, arXiv 2410.01679)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Literal

from etude.learn.step_model import Prefixes, StepTarget
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.prefix_values import prefixes, scores_through
from etude.tasks.reward import Reward

Rewards = Sequence[Sequence[Reward]]
Values = Sequence[Sequence[tuple[float, ...]]]
"""V at the step boundaries of every attempt, by group."""


def prefixes_of(attempt: Attempt) -> Prefixes:
    """Return the boundaries of an attempt's steps; each prefix ends with a step's last own token."""
    own, start = [place for place, source in enumerate(attempt.sources) if source == Source.OWN], len(attempt.prompt)
    ends = tuple(own[len(prefix) - 1] + 1 - start if prefix else 0 for prefix in prefixes(attempt))
    return Prefixes(attempt.prompt, attempt.tokens[start:], ends)


def step_targets_of(groups: Sequence[Group], rewards: Rewards, targets: Literal["soft", "hard"]) -> list[StepTarget]:
    """Return targets for every attempt whose steps have values: these (soft), or whether any attempt with the prefix was right (hard)."""
    found = []
    for group, row in zip(groups, rewards, strict=True):
        ends_right = [reward if reward.score is None else replace(reward, score=float(reward.is_right)) for reward in row]
        was_right = {prefix: max(ends) for prefix, ends in scores_through(group, ends_right).items()}
        for attempt, reward in zip(group.attempts, row, strict=True):
            if reward.score is not None and reward.step_values:
                hard = tuple(was_right[prefix] for prefix in prefixes(attempt))
                found.append(StepTarget(prefixes_of(attempt), reward.step_values if targets == "soft" else hard))
    return found


def valued(rewards: Rewards, values: Values, trust: float = 1.0) -> list[list[Reward]]:
    """Return rewards whose steps are worth `trust` · V + (1 - trust) · their previous values, with baselines mixed alike. At the end of an
    attempt the value is its score.
    """

    def blended(reward: Reward, own: Sequence[float]) -> Reward:
        assert reward.score is not None
        own = (*own[:-1], reward.score)
        before = reward.step_values, reward.step_baselines or reward.step_values[:-1]
        return replace(reward, step_values=_mixed(trust, own, before[0]), step_baselines=_mixed(trust, own[:-1], before[1]))

    return [
        [reward if reward.score is None else blended(reward, own) for reward, own in zip(row, rows, strict=True)]
        for row, rows in zip(rewards, values, strict=True)
    ]


def _mixed(trust: float, own: Sequence[float], before: Sequence[float]) -> tuple[float, ...]:
    return tuple(trust * mine + (1 - trust) * its for mine, its in zip(own, before, strict=True))


@dataclass(frozen=True)
class ValuePredictions:
    """A step model's predictions for attempts, and their scores."""

    groups: Sequence[Sequence[tuple[float, float]]]
    """(V at the middle boundary, score) of every attempt that has one, by group."""

    @staticmethod
    def of(rewards: Rewards, values: Values) -> "ValuePredictions":
        return ValuePredictions(
            [
                [(own[(len(own) - 1) // 2], reward.score) for reward, own in zip(row, rows, strict=True) if reward.score is not None]
                for row, rows in zip(rewards, values, strict=True)
            ]
        )

    @property
    def every(self) -> list[tuple[float, float]]:
        return [pair for group in self.groups for pair in group]

    def ordered(self) -> list[float]:
        """Return for each pair of attempts at a task whether V ordered it."""
        return [order for group in self.groups for order in in_order(group)]

    def metrics(self, mean_score: float) -> dict[str, float | None]:
        """Return the metrics; None where there is no data."""
        return {
            "brier": _mean([(value - score) ** 2 for value, score in self.every]),
            "brier_of_mean": _mean([(mean_score - score) ** 2 for _, score in self.every]),
            "auc": _mean(in_order(self.every)),
            "auc_within_task": _mean(self.ordered()),
        }


def in_order(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Compare every two (value, score) with different scores: 1 if the values are in the same order, 0 if not, and 1/2 if they are equal.

    >>> in_order([(0.9, 1.0), (0.2, 0.0), (0.9, 0.0)])
    [1.0, 0.5]
    """
    return [
        0.5 if value == other else float((value > other) == (score > its_score))
        for (value, score), (other, its_score) in combinations(pairs, 2)
        if score != its_score
    ]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
