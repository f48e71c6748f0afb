"""A question with all of its samples in one message, for methods that let the model read them beside each other."""

from collections.abc import Sequence

from etude.decoding.joint_inputs import with_question
from etude.rollouts.prompts import without_control
from etude.tasks.task import Task


def with_numbered_answers(tokenizer: object, task: Task, answers: Sequence[str], words: str) -> Task:
    """The question, its answers by number from 1, and what is asked of them, which may name {number} of them."""
    lines = [f"Answer {number}: {without_control(tokenizer, answer.strip())}" for number, answer in enumerate(answers, 1)]
    told = words.replace("{number}", str(len(answers)))
    return with_question(task, "\n\n".join([task.question, "\n".join(lines), told]))
