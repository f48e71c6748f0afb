"""What samples a step's attempts: one of several ways, each a `Sampler` with `sample(step, items) -> RolloutBatch`.

independent    samples of the policy (`etude.rollouts.independent`), variants of the prompt among them
refine         samples that are revised after feedback in words (`etude.rollouts.revising`)
beam, mcts, tree, vine   answers of a search (`etude.rollouts.tree_search`)
self_training  samples and an answer made of them (`etude.training.self_training`)
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
"""Texts at tasks → rewards, in order."""
Begin = Callable[[Sequence[tuple[str, Task]]], "Future[list[Reward]]"]
"""Has texts scored, without waiting."""


@dataclass
class Sampler:
    """What all ways have in common."""

    engine: PrefixEngine
    rollout: RolloutSettings
    seed: int
    judge: Judge
    """Scores attempts."""
    begin: Begin | None
    """Scores groups while others are sampled, where that is possible."""
    render: Callable[[Task], tuple[int, ...]]
    """A task's prompt as token ids."""
    room_tokens: int
    """How long a prompt may be for an answer of rollout.max_new_tokens to follow."""
    write_trees: Callable[[int, Iterable[Mapping[str, Any]]], None]
    """Keeps the trees of a step."""
    step_value: Value | None = None
    """What a step model expects of unfinished answers; a callback sets it."""
    sampling: Sampling = field(init=False)
    """How tokens are sampled now; a callback may change it from step to step."""

    def __post_init__(self) -> None:
        self.sampling = self.rollout.sampling

    def check(self, items: Items) -> None:
        """Raise UserError for tasks, of all that are practised on, that can't be sampled."""

    def sample(self, step: int, items: Items) -> RolloutBatch:
        """Return the scored attempts of step `step`, counted from 1, at these tasks."""
        raise NotImplementedError


class TimedJudge:
    """A judge that knows how long it was waited for."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.seconds = judge, 0.0

    def __call__(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        began = time.perf_counter()
        rewards = self.judge(pairs)
        self.seconds += time.perf_counter() - began
        return rewards


def judge_groups(groups: Sequence[Group], judge: Judge) -> list[list[Reward]]:
    """Return one reward for every attempt, by group."""
    flat = iter(judge([(attempt.text, group.task) for group in groups for attempt in group.attempts]))
    return [[next(flat) for _ in group.attempts] for group in groups]
