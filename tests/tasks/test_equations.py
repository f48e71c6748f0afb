"""Whether the equations of an answer hold."""

import time

import pytest

from etude.tasks.equations import find_wrong_equation
from etude.tasks.task import Task
from etude.tasks.verifiers import numeric


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("3 + 4 = 7", ""),
        ("3 + 4 = 8", "3 + 4 = 8"),
        ("42-10=22 apples", "42-10=22"),
        ("3 x 4 = 12, 12 \u00f7 4 = 3, 5 \u2212 2 = 3, 2 \u00d7 3 = 6", ""),
        ("2 + 3 * 4 = 14", ""),
        ("2 + 3 * 4 = 20", "2 + 3 * 4 = 20"),
        ("10 - 4 - 3 = 3 and 8 / 2 / 2 = 2", ""),
        ("1,000 + 500 = 1,500 and $3 * 2 = $6", ""),
        ("10 / 3 = 3.33", ""),
        ("10 / 3 = 3.34", "10 / 3 = 3.34"),
        ("10 / 3 = 3", "10 / 3 = 3"),
        ("3 + -4 = -1, -3 + 4 = 1", ""),
        ("first 2 + 2 = 4, then 4 + 4 = 9, then 9 + 1 = 11", "4 + 4 = 9"),
        ("4 / 0 = 0", ""),
        ("(3 + 4) * 2 = 14", ""),
        ("2 * (3 + 4) = 15", ""),
        ("x + 5 + 2 = 8", ""),
        ("3 + 4 = 7 + 1", ""),
        ("2 ^ 3 + 1 = 9", ""),
        ("a = 3", ""),
        ("20 * 5 = 100%", ""),
        ("", ""),
    ],
)
def test_the_first_equation_that_does_not_hold_is_found(text, wrong):
    assert find_wrong_equation(text) == wrong


@pytest.mark.parametrize("text", ["1 + " * 5000, "1 = " * 5000, "9" * 20000, "1+" * 9 + "1=" * 5000, " " * 20000, "1,000" * 4000])
def test_a_long_text_takes_linear_time(text):
    start = time.perf_counter()
    find_wrong_equation(text)
    assert time.perf_counter() - start < 1


def test_feedback_on_a_wrong_number_quotes_the_first_wrong_calculation():
    text = "42 - 10 = 22\nThe answer is 22"
    for gold in ("32", "9"):
        words = numeric(text, Task("How many?", gold)).words
        assert words == "I read 22 as your answer, and it is not right. '42 - 10 = 22' does not hold."
    assert numeric("40 - 10 = 30", Task("How many?", "32")).words == "I read 30 as your answer, and it is not right."
    assert numeric(text, Task("How many?", "22")).words == ""
