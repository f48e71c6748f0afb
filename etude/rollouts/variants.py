"""Attempts at one task with different wordings: attempt i has the variant i of its prompt, modulo the number of variants.

A variant is a paragraph after the question and its instruction ("Think of a way that few would take."); an empty one adds nothing. Each
attempt has the prompt that it answered, and is learned from as an answer to that prompt: a sample of the policy, with its log-probs. The
group is still one, so that its attempts are compared whatever their prompts.

Identity: the one variant "" gives the attempts of `etude.rollouts.samples`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from etude.engine.completion import Completion
from etude.engine.protocols import Engine
from etude.engine.sampling import Sampling
from etude.randomness import seed_for
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.task import Task


def asked(task: Task, variant: str) -> Task:
    """Return the task with this variant of its prompt.

    >>> asked(Task("2 + 2?", instruction="Be brief."), "Think twice.").instruction
    'Be brief.\\n\\nThink twice.'
    """
    return replace(task, instruction="\n\n".join(filter(None, (task.instruction, variant))))


def sample_variously(
    engine: Engine,
    tasks: Sequence[Task],
    prompts: Sequence[Sequence[tuple[int, ...]]],
    *,
    attempts: range,
    max_new_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
    places: Sequence[int],
    done: Callable[[int, Group], None] | None = None,
) -> list[Group]:
    """Sample the attempts of these numbers at every task, which has a prompt for each variant; keys and `done` as in `sample_groups`."""
    numbers = [[i for i in attempts if i % len(own) == variant] for own in prompts for variant in range(len(own))]
    rows = [(place, prompt) for place, own in enumerate(prompts) for prompt in own]
    keys = [[seed_for(*names, places[place], tasks[place].key, i) for i in row] for (place, _), row in zip(rows, numbers, strict=True)]
    asked_for = [row for row, own in enumerate(numbers) if own]
    found: list[dict[int, Attempt]] = [{} for _ in tasks]
    groups: dict[int, Group] = {}

    def keep(index: int, completions: Sequence[Completion]) -> None:
        row = asked_for[index]
        place, prompt = rows[row]
        found[place] |= {i: Attempt.of(prompt, completion) for i, completion in zip(numbers[row], completions, strict=True)}
        if len(found[place]) == len(attempts):
            groups[place] = Group(tasks[place], tuple(found[place][i] for i in attempts))
            if done:
                done(place, groups[place])

    how: dict[str, Any] = {"num_samples": max(map(len, numbers)), "max_new_tokens": max_new_tokens, "sampling": sampling}
    engine.generate([rows[row][1] for row in asked_for], **how, keys=[keys[row] for row in asked_for], on_complete=keep)
    return [groups[place] for place in range(len(tasks))]
