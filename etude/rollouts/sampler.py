"""The interface for sampling a step's attempts: a `Sampler` has `sample(step, items) -> RolloutBatch`.

independent    samples of the policy (`etude.rollouts.independent`), also with variants of the prompt
refine         samples that are revised after feedback in words (`etude.rollouts.revising`)
beam, mcts, tree, vine   answers of a search (`etude.rollouts.tree_search`)
self_training  samples and an answer decoded from them (`etude.training.self_training`)
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.rollouts.attempts import Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.search.growing import Value
from etude.rollouts.settings import RolloutSettings
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Items = Sequence[tuple[Task, tuple[int, ...]]]
"""Tasks with their prompts as token ids."""
Judge = Callable[[Sequence[tuple[str, Task]]], list[Reward]]
"""(text, task) pairs → rewards, in order."""
Begin = Callable[[Sequence[tuple[str, Task]]], "Future[list[Reward]]"]
"""Starts scoring texts without waiting."""


@dataclass
class Sampler:
    """Base class of samplers."""

    engine: PrefixEngine
    rollout: RolloutSettings
    seed: int
    judge: Judge
    """Scores attempts."""
    begin: Begin | None
    """Scores groups while others are sampled; None if that is not possible."""
    render: Callable[[Task], tuple[int, ...]]
    """Returns a task's prompt as token ids."""
    room_tokens: int
    """Longest prompt that leaves room for an answer of rollout.max_new_tokens."""
    write_trees: Callable[[int, Iterable[Mapping[str, Any]]], None]
    """Writes the trees of a step."""
    step_value: Value | None = None
    """A step model's values of unfinished answers; a callback sets it."""
    sampling: Sampling = field(init=False)
    """The current sampling parameters; a callback may change them from step to step."""

    def __post_init__(self) -> None:
        self.sampling = self.rollout.sampling

    def check(self, items: Items) -> None:
        """Raise UserError if any of the practice tasks cannot be sampled."""

    def sample(self, step: int, items: Items) -> RolloutBatch:
        """Return the scored attempts of step `step`, counted from 1, at these tasks."""
        raise NotImplementedError


class TimedJudge:
    """A judge that measures the time spent waiting for it."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.seconds = judge, 0.0

    def __call__(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        began = time.perf_counter()
        rewards = self.judge(pairs)
        self.seconds += time.perf_counter() - began
        return rewards


def judge_groups(groups: Sequence[Group], judge: Judge) -> list[list[Reward]]:
    """Return the rewards of all attempts, by group."""
    flat = iter(judge([(attempt.text, group.task) for group in groups for attempt in group.attempts]))
    return [[next(flat) for _ in group.attempts] for group in groups]
