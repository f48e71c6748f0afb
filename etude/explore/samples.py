"""The plainest exploration: independent samples, a group for each task."""

from collections.abc import Sequence

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.explore.attempts import Attempt, Group
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
) -> list[Group]:
    """`num_samples` attempts at every task; keys are hashed from `names` (seed, step), the task, its place and the attempt."""
    keys = [[seed_for(*names, place, task.key, attempt) for attempt in range(num_samples)] for place, task in enumerate(tasks)]
    found = engine.generate(prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, sampling=sampling, keys=keys)
    return [
        Group(task, tuple(Attempt.of(prompt, completion) for completion in completions))
        for task, prompt, completions in zip(tasks, prompts, found, strict=True)
    ]
