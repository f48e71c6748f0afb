"""Prompts that ask the policy to write a problem: examples, then a place for a new one."""

from collections.abc import Sequence
from dataclasses import replace

from etude.tasks.task import Task

Example = tuple[str, str]
"""A problem and a text that solves it."""

_VARY = (
    "Each solution belongs to a problem. Write the problem of the last solution, in other words or with another story, without its answer."
)
_PROPOSE = "Here are problems of one kind. Write another one, without its answer."


def writing_of_variant(task: Task, solution: str, examples: Sequence[Example]) -> Task:
    """Return the task of writing a problem that `solution` solves; the original problem is not shown (SvS, arXiv 2508.14029 sec. 3)."""
    shown = [f"Solution: {solved.strip()}\nProblem: {problem.strip()}" for problem, solved in examples]
    return _writing(task, [_VARY, *shown, f"Solution: {solution.strip()}\nProblem:"])


def writing_of_problem(task: Task, problems: Sequence[str]) -> Task:
    """Return the task of writing a problem like these."""
    return _writing(task, [_PROPOSE, *(f"Problem: {problem.strip()}" for problem in problems), "Problem:"])


def _writing(task: Task, paragraphs: Sequence[str]) -> Task:
    """Return a task with these paragraphs, in the message format of `task`, without a gold answer or an instruction."""
    text = "\n\n".join(paragraphs)
    system = () if isinstance(task.prompt, str) else tuple(message for message in task.prompt if message["role"] == "system")
    prompt = text if isinstance(task.prompt, str) else (*system, {"role": "user", "content": text})
    return replace(
        task, prompt=prompt, answer=None, worked=None, metadata={}, instruction="", verifier="exact", origin="a problem to write"
    )
