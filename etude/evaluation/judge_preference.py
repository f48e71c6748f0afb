"""Which of two answers does a judge prefer, whatever stands first? For answers that a verifier reads badly, such as long ones.

Every question with two different answers is put to the judge in both orders (`etude.rewards.pairwise`); a judge that prefers a place makes
a tie. Equal answers are a tie too; a question of which one answer is not given, or of which the judge says nothing, does not count.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from etude.evaluation.statistics import mean_interval
from etude.rewards.verdict import Verdict
from etude.tasks.task import Task

Compare = Callable[[Sequence[tuple[str, Task]]], Sequence[Verdict]]
"""Attempts, of which those at one task are compared with each other → a verdict for each."""


def judge_preference(tasks: Sequence[Task], before: Sequence[str], after: Sequence[str | None], compare: Compare) -> dict[str, Any]:
    """`preferred`, the share of the questions whose later answer the judge prefers, ties half (0.5: no better), with its interval (95 %
    bootstrap over questions), None where the judge said nothing of any different ones; `preferred_n` questions that count;
    `preferred_unread`, of how many the judge said nothing; `preferred_order`, the share of those read where its verdict changed with the
    order.
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
