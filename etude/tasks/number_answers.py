"""Reads the number that a text gives as its answer."""

import re
from dataclasses import replace
from itertools import pairwise

from etude.tasks.answers import last_characters, marked_answer
from etude.tasks.equations import computed_results
from etude.tasks.numbers import Number, find_numbers, is_range

NO_NUMBER = "no number in the answer"
_CLAUSE_END = re.compile(r"[.,;](?=\s)")
_OPERATOR = re.compile(r"[ ]?(?:[-+*/^\u2212\u00d7\u00f7\u00b7]|times\b|plus\b|minus\b)", re.IGNORECASE)
_BETWEEN_OPERANDS = re.compile(rf"{_OPERATOR.pattern}[ ]?", re.IGNORECASE)
_COMMA = re.compile(r",[ ]?")
_AT_ONCE = re.compile(r"[^\w\n]{0,8}\d")
_NOT = re.compile(r"\bnot\s{1,3}\Z", re.IGNORECASE)
_SIGN_APART = re.compile(r"(?:\A|=|\bis)[ \t]*(?P<sign>[-\u2212])[ \t]+\Z")


def read_number(text: str) -> tuple[Number | None, str]:
    """Return the number that a text gives as its answer, or None and the problem.

    >>> read_number("It is 5 or 6")
    (None, '5 or 6 is not one number')
    """
    text = last_characters(text)
    marked = marked_answer(text)
    if marked is not None:
        text = _result_side(marked.splitlines()[0])
    numbers = [_apply_sign(text, number) for number in _drop_denied(text, find_numbers(text))]
    if not numbers:
        return None, NO_NUMBER
    joined = _join_operands(text, numbers) if marked is not None else _join_operands(text, numbers[-2:])
    if joined:
        return None, f"{joined} is not one number"
    return (numbers[0] if marked is not None else numbers[-1]), ""


def compute_number(text: str) -> tuple[Number | None, str]:
    """Return the number that a text gives as its answer; if it is a wrong result of an equation, what a calculator says instead.

    >>> str(compute_number("24 + 39 = 53. The answer is 53.")[0]), str(compute_number("24 + 39 = 53. The answer is 7.")[0])
    ('63', '7')
    """
    number, problem = read_number(text)
    if number is not None:
        number = replace(number, value=computed_results(text).get(number.value, number.value))
    return number, problem


def _join_operands(text: str, numbers: list[Number]) -> str:
    """Return the alternatives or the calculation of the first number: `5 or 6`, `7, 8 or 9`, `3 + 4`; "" for none."""
    for first, second in pairwise(numbers):
        if is_range(text, (first, second)) or _BETWEEN_OPERANDS.fullmatch(text, first.end, second.start):
            return text[numbers[0].start : second.end]
        if not _COMMA.fullmatch(text, first.end, second.start):
            break
    return ""


def _result_side(line: str) -> str:
    """Return the side of a line's equations with the result: the last one with one number, or else the last one with any.

    Text after the first clause may hold other numbers: `3 + 7 = 10. I checked it 3 times`, `5. To check: 5 + 3 = 8`.

    >>> _result_side("3 + 7 = 10"), _result_side("12 = 3 * 4")
    (' 10', '12 ')
    """
    *before, last = line.split("=")
    if not before:
        return last
    clause = _CLAUSE_END.split(line, maxsplit=1)[0]
    if "=" not in clause and _AT_ONCE.match(clause) and len(find_numbers(clause)) == 1:
        return clause
    sides = [*before, _CLAUSE_END.split(last, maxsplit=1)[0]]
    single = next((side for side in reversed(sides) if len(find_numbers(side)) == 1), None)
    if single is not None:
        return single
    first = next(iter(find_numbers(last)), None)
    if first is not None and not _OPERATOR.match(last, first.end):
        return last
    return "=".join(before)


def _drop_denied(text: str, numbers: list[Number]) -> list[Number]:
    """Drop the numbers that the text denies: `not 5 but 7`, `not 5 or 6`."""
    stated: list[Number] = []
    denied: Number | None = None
    for number in numbers:
        if _NOT.search(text, max(0, number.start - 8), number.start) or (denied is not None and is_range(text, (denied, number))):
            denied = number
        else:
            denied = None
            stated.append(number)
    return stated


def _apply_sign(text: str, number: Number) -> Number:
    """Apply a separate minus before a number at the text's beginning or after `=` or `is`, where it cannot be a subtraction."""
    sign = _SIGN_APART.search(text, max(0, number.start - 12), number.start)
    if sign is None or not (text[number.start].isdigit() or text[number.start] == "."):
        return number
    return replace(number, value=-number.value, start=sign.start("sign"))
