"""A question with all of its samples in one message, for methods in which the model compares them."""

from collections.abc import Sequence

from etude.decoding.joint_inputs import with_question
from etude.rollouts.prompts import without_control
from etude.tasks.task import Task


def with_numbered_answers(tokenizer: object, task: Task, answers: Sequence[str], words: str) -> Task:
    """Return a task with the question, its answers numbered from 1, and an instruction, in which {number} is their count."""
    lines = [f"Answer {number}: {without_control(tokenizer, answer.strip())}" for number, answer in enumerate(answers, 1)]
    request = words.replace("{number}", str(len(answers)))
    return with_question(task, "\n\n".join([task.question, "\n".join(lines), request]))
