"""Demonstrations of writing a problem, for the warm start of a model that will write tasks (`etude.callbacks.synthetic_tasks`)."""

from collections.abc import Sequence
from typing import Any

from etude.errors import UserError
from etude.learn.example import Example, demonstration
from etude.randomness import seed_for
from etude.rollouts.prompts import render_answer, render_prompt, shown_answer
from etude.rollouts.synthetic.prompts import writing_of_problem, writing_of_variant
from etude.tasks.task import Task


def writing_demonstrations(tokenizer: Any, tasks: Sequence[Task], *, n: int, shots: int, seed: int, max_tokens: int) -> list[Example]:
    """Return demonstrations of writing the problems of the first n tasks, after `shots` other ones; prompts alternate between those of a
    variant's writer and of a proposer. One longer than `max_tokens` is left out. Raises UserError if there are fewer than n tasks.
    """
    if n > len(tasks):
        raise UserError(f"warm_start.writing is {n}, but there are only {len(tasks)} demonstrations: lower it, or raise warm_start.n")
    found = []
    for place, task in enumerate(tasks[:n]):
        others = [other for other in tasks if other.key != task.key]
        order = sorted(range(len(others)), key=lambda other: seed_for(seed, "writing", place, other))
        shown = [others[other] for other in order[:shots]]
        if place % 2 == 0:
            writing = writing_of_variant(task, shown_answer(task), [(other.question, shown_answer(other)) for other in shown])
        else:
            writing = writing_of_problem(task, [other.question for other in shown])
        example = demonstration(render_prompt(tokenizer, writing), render_answer(tokenizer, f" {task.question}"))
        found.append(example)
    return [example for example in found if len(example.prompt) + len(example.completion) <= max_tokens]
