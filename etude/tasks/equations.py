"""Finds wrong calculations: checks the equations of numbers in a text, without knowing the correct result."""

import re
from fractions import Fraction

from etude.tasks.answers import last_characters

_NUMBER = r"\$?-?\d{1,15}(?:,\d{3}){0,4}(?:\.\d{1,12})?"
_OPERATOR = r"[-+*/x\u00d7\u00f7\u2212]"
_GAP = r"[ ]{0,2}"
_EQUATION = re.compile(
    rf"(?<![\w.,)(^$%=+*/\u00d7\u00f7\u2212-])(?<![+*/x^=\u00d7\u00f7\u2212-][ ])"  # not within another, nor after an unknown
    rf"(?P<left>{_NUMBER}(?:{_GAP}{_OPERATOR}{_GAP}{_NUMBER}){{1,8}})"
    rf"{_GAP}={_GAP}(?P<right>{_NUMBER})(?![\d%])(?!{_GAP}[-+*/x^\u00d7\u00f7\u2212]{_GAP}[\d(])"
)
_PART = re.compile(rf"(?P<operator>{_OPERATOR}?){_GAP}(?P<number>{_NUMBER})")
_PLAIN = str.maketrans({"\u00d7": "*", "x": "*", "\u00f7": "/", "\u2212": "-"})


def find_wrong_equation(text: str) -> str:
    """Return the first equation of numbers in a text that does not hold, as written; "" if there is none. Takes linear time.

    Sums, differences, products and quotients without parentheses are read; a result with decimals may be rounded.

    >>> find_wrong_equation("42 - 10 = 22, and 22 * 2 = 44"), find_wrong_equation("10 / 3 = 3.33 each")
    ('42 - 10 = 22', '')
    """
    for found in _EQUATION.finditer(last_characters(text)):
        value, right = _value(found["left"]), found["right"]
        decimals = len(right.partition(".")[2])
        if value is not None and abs(value - _number(right)) > (Fraction(1, 2 * 10**decimals) if decimals else 0):
            return found[0]
    return ""


def _value(left: str) -> Fraction | None:
    """Compute the left side, products before sums; None for a division by 0."""
    total, product = Fraction(0), Fraction(0)
    start = 0
    while part := _PART.match(left, start):
        operator, number = part["operator"].translate(_PLAIN), _number(part["number"])
        if operator == "*":
            product *= number
        elif operator == "/":
            if not number:
                return None
            product /= number
        else:
            total, product = total + product, -number if operator == "-" else number
        start = part.end() + len(left[part.end() :]) - len(left[part.end() :].lstrip(" "))
    return total + product


def _number(text: str) -> Fraction:
    return Fraction(text.replace("$", "").replace(",", ""))
