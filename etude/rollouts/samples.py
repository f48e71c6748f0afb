"""Plain rollouts: independent samples, a group for each task."""

from collections.abc import Callable, Sequence
from typing import Any

from etude.engine.completion import Completion
from etude.engine.protocols import Engine
from etude.engine.sampling import Sampling
from etude.randomness import seed_for
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.task import Task


def sample_groups(
    engine: Engine,
    tasks: Sequence[Task],
    prompts: Sequence[tuple[int, ...]],
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    places: Sequence[int] | None = None,
    first: int = 0,
    done: Callable[[int, Group], None] | None = None,
) -> list[Group]:
    """Sample `num_samples` attempts at every task, numbered from `first`. Keys are hashed from `names` (seed, step), the task, its index
    (in order unless given) and the attempt's number.

    `done` gets each group with its number as soon as it is complete, while others are still sampled.
    """
    places, attempts = range(len(tasks)) if places is None else places, range(first, first + num_samples)
    named = [(*names, place, task.key) for place, task in zip(places, tasks, strict=True)]
    keys = [[seed_for(*parts, attempt) for attempt in attempts] for parts in named]
    how: dict[str, Any] = {"num_samples": num_samples, "max_new_tokens": max_new_tokens, "sampling": sampling}
    groups: dict[int, Group] = {}

    def keep(place: int, completions: Sequence[Completion]) -> None:
        groups[place] = Group(tasks[place], tuple(Attempt.of(prompts[place], completion) for completion in completions))
        if done:
            done(place, groups[place])

    engine.generate(prompts, **how, keys=keys, on_complete=keep)
    return [groups[place] for place in range(len(tasks))]
