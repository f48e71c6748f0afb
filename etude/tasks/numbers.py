"""Finds numbers in text as exact rationals, and compares them.

Integers, thousands separators (1,000), decimals, exponents (1.5e3), fractions (3/4), mixed numbers (1 1/2) and signs are read. A currency
sign before a number, and percent or a unit after it, do not change its value ("$18", "18%" and "18 dollars" are 18). A number inside a word
(`x2`, `0x1F`) does not count. Takes linear time: every repetition is possessive, so the expression never backtracks into a number.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction

_NUMBER = re.compile(
    r"""
    (?<![\w.])
    (?P<sign>[-+\u2212]?) [$\u20ac\u00a3\u00a5]? (?P<inner_sign>[-\u2212]?)
    (?:
        (?: (?P<whole>\d++) [ ] )? (?P<top>\d++) [ ]?/[ ]? (?P<bottom>\d++) (?![/.]\d)
      | (?P<integer> \d{1,3} (?:,\d{3}(?!\d))++ | \d++ ) (?P<decimals>\.\d++)? (?P<exponent>[eE][-+]?\d{1,3}(?!\d))?
      | (?P<bare>\.\d++)
    )
    (?! [^\W\d]++ \d )
    (?: [ ]?% )?
    """,
    re.VERBOSE,
)
_LONGEST = 400
_BETWEEN = re.compile(r"\s?(?:or|to|and|[-\u2013\u2014~])\s?", re.IGNORECASE)
_TOLERANCE = Fraction(1, 1_000_000)
_SEVENTEEN_FIGURES = Context(prec=17, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True)
class Number:
    """A number found in a text."""

    value: Fraction
    """The exact value."""
    start: int
    """Position of its first character in the text."""
    end: int
    """Position after its last character."""
    has_decimals: bool = False
    """Whether it is written with a decimal point or an exponent, so that it may be rounded."""

    def __str__(self) -> str:
        return write_number(self.value)


def find_numbers(text: str) -> list[Number]:
    """Find all numbers of a text, in order.

    >>> [str(number) for number in find_numbers("1,000 dollars, -2.50 and 1 1/3")]
    ['1000', '-2.5', '4/3']
    """
    numbers: list[Number] = []
    for match in _NUMBER.finditer(text):
        numbers.extend(_read(match))
    return numbers


def is_range(text: str, numbers: Sequence[Number]) -> bool:
    """Tell whether two neighbouring numbers of a text are alternatives or the ends of a range: `5 or 6`, `5-10`, `3 to 4`."""
    first, second = numbers
    return second.start - first.end <= 8 and _BETWEEN.fullmatch(text, first.end, second.start) is not None


def same_number(found: Number, gold: Number) -> bool:
    """Tell whether two numbers are equal: exactly, or within one part in a million if the gold number has decimals.

    >>> half, decimal = find_numbers("1/2 0.5")
    >>> same_number(half, decimal)
    True
    """
    if not gold.has_decimals:
        return found.value == gold.value
    return abs(found.value - gold.value) <= _TOLERANCE * abs(gold.value)


def write_number(value: Fraction) -> str:
    """Write a rational as an integer, a finite decimal, or a fraction.

    If this needs an integer of more than 400 digits, which `find_numbers` would not read and Python may refuse to write, the result is in
    e-notation, rounded to 17 digits.

    >>> write_number(Fraction(51)), write_number(Fraction(-5, 2)), write_number(Fraction(1, 3)), write_number(Fraction(10) ** 5000)
    ('51', '-2.5', '1/3', '1e5000')
    """
    if max(abs(value.numerator), value.denominator) >= 10**_LONGEST:
        rounded = _SEVENTEEN_FIGURES.divide(Decimal(value.numerator), Decimal(value.denominator))
        return f"{rounded.normalize(_SEVENTEEN_FIGURES):e}".replace("e+", "e")
    if value.denominator == 1:
        return str(value.numerator)
    places = _decimal_places(value.denominator)
    if places is None:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


def _decimal_places(denominator: int) -> int | None:
    """Return the number of decimal places of a fraction in lowest terms, or None if it never ends or has more than 30."""
    return next((places for places in range(1, 31) if 10**places % denominator == 0), None)


def _read(match: re.Match[str]) -> list[Number]:
    """Convert a match to numbers: usually one; two for a whole number before a fraction (`6 48/2`); none if it is too long or invalid."""
    if match.end() - match.start() > _LONGEST or (match["sign"] and match["inner_sign"]):
        return []
    sign = -1 if (match["sign"] or match["inner_sign"]) in ("-", "\u2212") else 1
    if match["top"] is None:
        digits = match["bare"] or match["integer"].replace(",", "") + (match["decimals"] or "") + (match["exponent"] or "")
        rounded = bool(match["bare"] or match["decimals"] or match["exponent"])
        return [Number(sign * Fraction(digits), match.start(), match.end(), rounded)]
    top, bottom = int(match["top"]), int(match["bottom"])
    if bottom == 0:
        return []
    if match["whole"] is None:
        return [Number(sign * Fraction(top, bottom), match.start(), match.end())]
    if top < bottom:
        return [Number(sign * (int(match["whole"]) + Fraction(top, bottom)), match.start(), match.end())]
    whole = Number(sign * Fraction(int(match["whole"])), match.start(), match.end("whole"))
    return [whole, Number(Fraction(top, bottom), match.start("top"), match.end())]
