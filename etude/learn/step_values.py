"""Judged attempts → what a step model learns from them, rewards that know its values, and how well it knew what came of them.

What it knew is measured on values from before it learned from these attempts, at the middle boundary of each attempt's steps:

brier    mean (V - score)², beside the same of the mean score of earlier attempts, which knows nothing of this one
auc      of two attempts with different scores, how often the higher V has the higher score, ties half: 1/2 by chance. Over all attempts of
         a step it also tells who knows hard tasks from easy ones; within the attempts at a task, who knows good prefixes from bad, where
         value models did hardly better than chance (VinePPO, arXiv 2410.01679)
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
"""V at the boundaries of the steps of every attempt, by group."""


def prefixes_of(attempt: Attempt) -> Prefixes:
    """Return the boundaries of its steps, which the model reads right behind each step's last own token."""
    own, start = [place for place, source in enumerate(attempt.sources) if source == Source.OWN], len(attempt.prompt)
    ends = tuple(own[len(prefix) - 1] + 1 - start if prefix else 0 for prefix in prefixes(attempt))
    return Prefixes(attempt.prompt, attempt.tokens[start:], ends)


def step_targets_of(groups: Sequence[Group], rewards: Rewards, targets: Literal["soft", "hard"]) -> list[StepTarget]:
    """Of every attempt whose steps have values: these are the soft targets; hard ones ask whether any attempt that began so was right."""
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
    """The rewards, their steps worth `trust` · what the step model says + (1 - trust) · what they were worth before, and their baselines
    alike; at the end of an attempt it is the score itself.
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
    """What a step model had said of attempts, and what came of them."""

    groups: Sequence[Sequence[tuple[float, float]]]
    """V at the middle boundary, and the score, of every attempt that has one, by group."""

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
        """Of the pairs of attempts at a task: whether V put them in order."""
        return [order for group in self.groups for order in in_order(group)]

    def metrics(self, mean_score: float) -> dict[str, float | None]:
        """None where nothing can be said."""
        return {
            "brier": _mean([(value - score) ** 2 for value, score in self.every]),
            "brier_of_mean": _mean([(mean_score - score) ** 2 for _, score in self.every]),
            "auc": _mean(in_order(self.every)),
            "auc_within_task": _mean(self.ordered()),
        }


def in_order(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """Of every two (value, score) whose scores differ: 1 where the values stand in the same order, else 0, and 1/2 where they are equal.

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
