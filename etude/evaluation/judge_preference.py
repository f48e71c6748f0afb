"""Pairwise preference: a judge model compares two answers to each question, for answers that verifiers read badly, such as long ones.

Each pair of different answers is judged in both orders (`etude.rewards.pairwise`). If the judge prefers the same position in both, the pair
is a tie. Equal answers are a tie too. A question does not count if an answer is missing or if the judge gives no reward.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.statistics import mean_interval
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Compare = Callable[[Sequence[tuple[str, Task]]], Sequence[Reward]]
"""Attempts (those at one task are compared with each other) → a reward for each."""


def judge_preference(tasks: Sequence[Task], before: Sequence[str], after: Sequence[str | None], compare: Compare) -> dict[str, Any]:
    """Return how often the judge prefers the second answer to each question over the first.

    `preferred` is that share, ties counting half (0.5: no better), with its 95 % bootstrap interval over questions; None if the judge read
    no pair of different answers. `preferred_n` is the number of these questions, `preferred_unread` that of pairs without a reward, and
    `preferred_order` the share of the read pairs whose result changed with the order.
    """
    both = [(task, first, second) for task, first, second in zip(tasks, before, after, strict=True) if second is not None]
    asked = [(task, first, second) for task, first, second in both if first.strip() != second.strip()]
    found = compare([(text, task) for task, *texts in asked for text in texts]) if asked else []
    said = [verdict for verdict in found[1::2] if verdict.score is not None]
    points = [0.5] * (len(both) - len(asked)) + [float(verdict.score or 0) for verdict in said]
    row: dict[str, Any] = {"preferred": None, "preferred_n": len(points), "preferred_unread": len(asked) - len(said)}
    if not points or (asked and not said):
        return row
    low, high = mean_interval(points)
    row |= {"preferred": fmean(points), "preferred_low": low, "preferred_high": high}
    return row | {"preferred_order": fmean([verdict.parts["judge_disagreement"] for verdict in said] or [0.0])}
