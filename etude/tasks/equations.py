"""Reads the equations of numbers in a text: which one is wrong, and what a calculator says instead."""

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from etude.tasks.answers import last_characters

_NUMBER = r"\$?-?\d{1,15}+(?:,\d{3}){0,4}+(?:\.\d{1,12})?+"
_OPERATOR = r"[-+*/x\u00d7\u00f7\u2212]"
_GAP = r"[ ]{0,2}"
_EQUATION = re.compile(
    rf"(?<![\w.,)(^$%=+*/\u00d7\u00f7\u2212-])(?<![+*/x^=\u00d7\u00f7\u2212-][ ])"  # not within another, nor after an unknown
    rf"(?P<left>{_NUMBER}(?:{_GAP}{_OPERATOR}{_GAP}{_NUMBER}){{1,8}})"
    rf"{_GAP}={_GAP}(?P<right>{_NUMBER})(?![\d%])(?!{_GAP}[-+*/x^\u00d7\u00f7\u2212]{_GAP}[\d(])"
)
_PART = re.compile(rf"(?P<operator>{_OPERATOR}?){_GAP}(?P<number>{_NUMBER})")
_LARGEST = 10**60
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


def computed_results(text: str) -> dict[Fraction, Fraction]:
    """Return the results in a text that are written wrong, and what a calculator says instead. Takes linear time.

    An equation that goes on from such a result is computed from the right one, also where the same number came from elsewhere. A result
    that is off by at most one unit of its last decimal is taken as rounded. Equations that divide by 0, or come to more than 60 digits, are
    left out.

    >>> computed_results("24 + 39 = 53, and 53 - 4 = 49")
    {Fraction(53, 1): Fraction(63, 1), Fraction(49, 1): Fraction(59, 1)}
    """
    instead: dict[Fraction, Fraction] = {}
    for found in _EQUATION.finditer(last_characters(text)):
        value, written = _value(found["left"], instead), _number(found["right"])
        decimals = len(found["right"].partition(".")[2])
        if value is None or max(abs(value.numerator), value.denominator) > _LARGEST:
            continue
        if abs(value - written) > (Fraction(1, 10**decimals) if decimals else 0):
            instead[written] = value
        else:
            instead.pop(written, None)
    return instead


def _value(left: str, instead: Mapping[Fraction, Fraction] = MappingProxyType({})) -> Fraction | None:
    """Compute the left side, products before sums, with other numbers `instead` of some; None for a division by 0."""
    total, product = Fraction(0), Fraction(0)
    start = 0
    while part := _PART.match(left, start):
        operator, number = part["operator"].translate(_PLAIN), _number(part["number"])
        if operator == "-" and start == 0:
            operator, number = "", -number
        number = instead.get(number, number)
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
