"""Checks loaded tasks: their verifiers, texts and gold answers."""

from collections.abc import Iterable

from etude.errors import UserError, unknown
from etude.tasks.task import Task, text_problem
from etude.tasks.verifiers import CHEAP, COMPARING, VERIFIERS, check_gold


def check_is_built_in(task: Task) -> None:
    """Raise UserError for a verifier that is not in the table: only the user's settings and function, not data, may name code to run."""
    if task.verifier and task.verifier not in VERIFIERS:
        problem = unknown("verifier", task.verifier, VERIFIERS)
        raise UserError(f"{task.origin}: {problem}. A row of data may name no other: set tasks.verifier to use a function of your own")


def check_texts(task: Task) -> None:
    """Raise UserError for a text with a lone surrogate, or one that is longer than `MAX_CHARACTERS`."""
    questions = [task.prompt] if isinstance(task.prompt, str) else [message["content"] for message in task.prompt]
    for name, text in (*(("question", text) for text in questions), ("answer", task.answer), ("worked", task.worked)):
        if text and (problem := text_problem(text)):
            raise UserError(f"{task.origin}: the {name} {problem}")


def check_answers(tasks: Iterable[Task]) -> None:
    """Raise UserError for a task without an answer whose verifier needs one; a user's own verifier may need none."""
    for task in tasks:
        if task.answer is None and task.verifier in COMPARING:
            raise UserError(
                f"{task.origin or 'a task'}: no answer, which the {task.verifier} verifier compares with: add it, say which column "
                "holds it (columns: {answer: THEIR_NAME}), or leave the row out; practice by reward majority_vote, judge or format needs "
                "none"
            )


def check_right_at(tasks: list[Task], right_at: float | None) -> None:
    """Raise UserError for a threshold at which a built-in verifier would count all answers as right, or none."""
    shipped = next((task.verifier for task in tasks if task.verifier in VERIFIERS), None)
    if right_at is not None and shipped and not 0 < right_at <= 1:
        raise UserError(
            f"tasks.right_at must be above 0 and at most 1 for the verifier {shipped}, which scores from 0 to 1, got {right_at:g}: leave "
            "it out, or set tasks.verifier to one of your own"
        )


def check_gold_answers(tasks: list[Task]) -> None:
    """Raise UserError for a gold answer that its verifier does not accept, if the verifier is cheap."""
    for task in tasks:
        problem = check_gold(task) if task.verifier in CHEAP else None
        if problem is not None:
            raise UserError(f"{task.origin}: the {task.verifier} verifier cannot read the answer: {problem}")
