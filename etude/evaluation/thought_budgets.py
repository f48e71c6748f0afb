"""Thinking budgets: greedy accuracy after thoughts of fixed lengths, on a suite's tasks."""

from collections.abc import Callable, Sequence
from typing import Any

from etude.engine.protocols import Engine
from etude.engine.sampling import GREEDY
from etude.evaluation.rewards import reward_row
from etude.evaluation.statistics import wilson_interval
from etude.rollouts.thought import Thoughts, forced
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Row = dict[str, Any]


def measure_thought_budgets(
    engine: Engine,
    tasks: Sequence[Task],
    prompts: Sequence[tuple[int, ...]],
    how: Thoughts,
    judge: Callable[[Sequence[tuple[str, Task]]], list[Reward]],
) -> tuple[list[Row], list[list[float | None]]]:
    """Measure greedy accuracy for each budget; returns a row per budget, and for each task its scores by budget.

    Rows have `budget_tokens`, `accuracy` with its Wilson interval (answers without a score are not correct), `mean_reward` with its
    interval, the mean of the `own_tokens` that the model sampled, `extended`, the share of answers whose thought would have ended sooner,
    and `cut`, the share whose thought had not ended.
    """
    rows, scores = [], []
    for budget in how.budgets:
        found = forced(engine, prompts, how, budget, sampling=GREEDY, keys=[0] * len(prompts))
        rewards = judge([(answer.text, task) for answer, task in zip(found, tasks, strict=True)])
        n, right = len(found), sum(reward.is_right for reward in rewards)
        low, high = wilson_interval(right, n)
        row = {"budget_tokens": budget, "accuracy": right / n, "accuracy_low": low, "accuracy_high": high, **reward_row(rewards)}
        row["own_tokens"] = sum(answer.own_tokens for answer in found) / n
        row["extended"] = sum(answer.ends_taken_back > 0 for answer in found) / n
        row["cut"] = sum(answer.is_cut for answer in found) / n
        rows.append(row)
        scores.append([reward.score for reward in rewards])
    return rows, [list(own) for own in zip(*scores, strict=True)]
