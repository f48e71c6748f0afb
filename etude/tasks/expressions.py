"""The `math` verifier: compares two mathematical expressions with math-verify, which parses LaTeX and plain expressions into sympy.

Sympy may run forever on an expression such as a tower of powers. Math-verify's own time limits need signals of the main thread, so they are
off here, and the process that runs it must be killable (`etude.rewards.verifier_reward`). Only the last 4,000 characters are read.
"""

import re
from typing import Any

from etude.tasks.answers import final_answer
from etude.tasks.feedback import quoted, read_as
from etude.tasks.reward import Reward
from etude.tasks.task import Task

_MAX_CHARACTERS = 4_000
_LONGEST_BARE = 200
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{3,}")

# LaTeX reads sin(x) as s*i*n*(x) and \sin(x) as the sine. Names count as whole words before their argument: "30 sec" is prose.
_KNOWN = "a(?:rc)?sin|a(?:rc)?cos|a(?:rc)?tan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp"
_FUNCTION = re.compile(rf"(?<![\\A-Za-z])(?P<name>{_KNOWN})(?=\s?[(^]|\s\d)")
_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
_BRACKETS = re.compile(r"((?<![\\A-Za-z])\\?sqrt\s?\(|(?<![\\A-Za-z])abs\s?\(|[()])")
_OPENINGS = {"s": (r"\sqrt{", "}"), "a": (r"\left|", r"\right|"), "(": ("(", ")")}

# A call that can't be converted to LaTeX: math-verify would take one of its numbers, 3 in 3*gamma(5), for the expression.
_CALL = re.compile(
    rf"(?:^\s?|[-+*/^(]\s?|\d)[A-Za-z]{{2,}}\d{{0,2}}\(|(?<![\\A-Za-z])(?:{_KNOWN}|sqrt|abs)\d{{0,2}}\s?[\d({{^]|(?<![A-Za-z])sqrt\d"
)


def math(text: str, task: Task) -> Reward:
    """Score 1.0 if the text's expression equals the gold expression in any notation, else 0.0.

    The expression is that found by math-verify (boxed, between dollar signs, or a number), or else the whole answer if it has no prose.
    """
    from math_verify import verify

    if task.answer is None:
        return Reward(None, message="the task has no gold answer")
    gold = _expression(task.answer)
    if not gold:
        return Reward(None, message=f"no expression in the gold answer {task.answer[:60]!r}")
    found = _expression(text[-_MAX_CHARACTERS:])
    if not found:
        return Reward(0.0, {"parsable": 0.0}, message="no expression in the answer", words="I found no expression in your answer.")
    if verify(gold, found, timeout_seconds=None):
        return Reward(1.0, {"parsable": 1.0})
    message = f"got {str(found[-1])[:60]}, expected {str(gold[-1])[:60]}"
    return Reward(0.0, {"parsable": 1.0}, message=message, words=read_as(quoted(str(found[-1]))))


def _expression(text: str) -> list[Any]:
    """Parse the expression of a text with math-verify: the expression and its string, or an empty list."""
    from math_verify import parse

    answer = final_answer(text)
    latex = as_latex(answer)
    if "$" in answer or "\\boxed" in answer:
        return parse(latex, parsing_timeout=None)
    is_closed = sum(map(answer.count, "([{")) == sum(map(answer.count, ")]}"))
    is_bare = len(answer) <= _LONGEST_BARE and is_closed and not _PROSE.search(latex)
    bare = parse(f"${latex.rstrip('.')}$", parsing_timeout=None) if is_bare and answer else []
    if bare or _CALL.search(answer.rpartition("=")[2]):
        return bare
    return parse(answer, parsing_timeout=None)


def as_latex(text: str) -> str:
    """Convert plain names of functions and pi to LaTeX; the text is unchanged if a bracket of a root or an absolute value never closes.

    >>> as_latex("2*pi + sqrt(sin(x)) + abs(y)")
    '2*\\\\pi + \\\\sqrt{\\\\sin(x)} + \\\\left|y\\\\right|'
    """
    closings: list[str] = []
    written: list[str] = []
    for index, piece in enumerate(_BRACKETS.split(_FUNCTION.sub(_command, _PI.sub(r"\\pi", text)))):
        is_bracket = index % 2 == 1
        if is_bracket and piece != ")":
            piece, closing = _OPENINGS[piece.lstrip("\\")[0]]
            closings.append(closing)
        elif is_bracket and closings:
            piece = closings.pop()
        written.append(piece)
    return text if any(closing != ")" for closing in closings) else "".join(written)


def _command(match: re.Match[str]) -> str:
    name = match["name"]
    return "\\arc" + name[1:] if name in ("asin", "acos", "atan") else "\\" + name
