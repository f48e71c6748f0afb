"""The plainest exploration: independent samples, a group for each task."""

from collections.abc import Callable, Sequence
from typing import Any

from etude.engine.completion import Completion
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.explore.attempts import Attempt, Group
from etude.explore.reuse import Drafts, visits
from etude.randomness import seed_for
from etude.tasks.task import Task


def sample_groups(
    engine: TransformersEngine,
    tasks: Sequence[Task],
    prompts: Sequence[tuple[int, ...]],
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    drafts: Drafts | None = None,
    done: Callable[[int, Group], None] | None = None,
) -> list[Group]:
    """`num_samples` attempts at every task; keys are hashed from `names` (seed, step), the task, its place and the attempt.

    With `drafts`, `names` are to be the same at every step, and the place is the task's visit in this step (`etude.explore.reuse`).
    `done` is given each group with its place as soon as it is complete, while others are still sampled.
    """
    places = range(len(tasks)) if drafts is None else visits(task.key for task in tasks)
    named = [(*names, place, task.key) for place, task in zip(places, tasks, strict=True)]
    keys = [[seed_for(*parts, attempt) for attempt in range(num_samples)] for parts in named]
    guesses = None if drafts is None else drafts.of(tasks, num_samples)
    how: dict[str, Any] = {"num_samples": num_samples, "max_new_tokens": max_new_tokens, "sampling": sampling}
    groups: dict[int, Group] = {}

    def keep(place: int, completions: Sequence[Completion]) -> None:
        groups[place] = Group(tasks[place], tuple(Attempt.of(prompts[place], completion) for completion in completions))
        if done:
            done(place, groups[place])

    engine.generate(prompts, **how, keys=keys, drafts=guesses, done=keep)
    return [groups[place] for place in range(len(tasks))]
