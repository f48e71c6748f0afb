"""Tasks that show their answer, so that a model finds a way to it (rationalization: STaR, arXiv 2203.14465, sec. 3.2).

A right attempt at such a task is kept as an attempt at the task itself, as if the answer had not been shown: its tokens are the task's own
prompt and what the model wrote. Its log-probs are those under the prompt that it saw. Its view marks it as no sample of the policy, so only
imitation and preference can learn from it.
"""

from dataclasses import replace

from etude.rollouts.attempts import HINTED, Attempt, Source
from etude.tasks.task import Task

HINT = "\nThe answer is {answer}. Show how one comes to it."


def hinted(task: Task, wording: str = HINT) -> Task:
    """Return the task with its answer shown after the question. Raises ValueError if the answer is unknown.

    >>> hinted(Task("What is 2 + 2?", "4"), " It is {answer}.").prompt
    'What is 2 + 2? It is 4.'
    """
    if task.answer is None:
        raise ValueError("a task without an answer has none to show")
    hint = wording.replace("{answer}", task.answer)
    if isinstance(task.prompt, str):
        return replace(task, prompt=task.prompt + hint)
    *before, last = task.prompt
    return replace(task, prompt=(*before, {**last, "content": last["content"] + hint}))


def without_hint(attempt: Attempt, prompt: tuple[int, ...]) -> Attempt:
    """Return an attempt at the hinted task as one at the task itself, whose prompt's token ids are given."""
    sources = (Source.GIVEN,) * len(prompt) + (Source.OWN,) * attempt.num_own_tokens
    return replace(attempt, tokens=(*prompt, *attempt.own_tokens), sources=sources, view=HINTED)
