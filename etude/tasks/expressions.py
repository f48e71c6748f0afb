"""The `math` verifier: are two mathematical expressions the same? By math-verify, which reads LaTeX and plain expressions into sympy.

Sympy may compute for ever on an expression such as a tower of powers. Math-verify's own time limits need signals of the main thread, so
they are off here, and the process that runs it must be killable (`etude.feedback.outcome`). Only the last 4,000 characters are read.
"""

import re
from typing import Any

from etude.feedback.verdict import Verdict
from etude.tasks.answers import final_answer
from etude.tasks.task import Task

_MAX_CHARACTERS = 4_000
_LONGEST_BARE = 200
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")


def math(text: str, task: Task) -> Verdict:
    """1.0 where the text's expression equals the gold expression, whichever way each is written.

    The expression is what math-verify finds (boxed, in dollars, or a number), or else the whole answer where it has no prose.
    """
    from math_verify import verify

    if task.answer is None:
        return Verdict(None, message="the task has no gold answer")
    gold = _expression(task.answer)
    if not gold:
        return Verdict(None, message=f"no expression in the gold answer {task.answer[:60]!r}")
    found = _expression(text[-_MAX_CHARACTERS:])
    if not found:
        return Verdict(0.0, {"parsable": 0.0}, message="no expression in the answer")
    right = bool(verify(gold, found, timeout_seconds=None))
    return Verdict(float(right), {"parsable": 1.0}, message="" if right else f"got {str(found[-1])[:60]}, expected {str(gold[-1])[:60]}")


def _expression(text: str) -> list[Any]:
    """What math-verify reads in a text: the expression and its string, or nothing."""
    from math_verify import parse

    answer = final_answer(text)
    is_bare = len(answer) <= _LONGEST_BARE and "$" not in answer and "\\boxed" not in answer and not _PROSE.search(answer)
    bare = parse(f"${answer.rstrip('.')}$", parsing_timeout=None) if is_bare and answer else []
    return bare or parse(answer, parsing_timeout=None)
