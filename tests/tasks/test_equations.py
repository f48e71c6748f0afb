"""Whether the equations of an answer hold."""

import time
from fractions import Fraction

import pytest

from etude.tasks.equations import computed_results, find_wrong_equation
from etude.tasks.task import Task
from etude.tasks.verifiers import calculator, numeric
from etude.tasks.votes import vote


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


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("3 + 4 = 7", {}),
        ("3 + 4 = 8", {8: 7}),
        ("24 + 39 = 53\n53 - 4 = 48", {53: 63, 48: 59}),  # the later line goes on from the computed result
        ("24 + 39 = 53\n53 - 4 = 59", {53: 63}),
        ("2 + 3 = 6, 6 + 6 = 1", {6: 5, 1: 10}),
        ("2 + 2 = 5, 4 + 1 = 5, 5 - 3 = 2", {}),  # the later equation makes 5 a right result
        ("5 - 9 = -3, -3 + 10 = 7", {-3: -4, 7: 6}),
        ("2.99 / 12 = 0.249167", {}),
        ("1 / 6 = 0.166667, 0.166667 + 0.166667 = 0.333333", {}),
        ("10 / 3 = 3", {3: Fraction(10, 3)}),
        ("4 / 0 = 1, 3 + 3 = 7", {7: 6}),
        ("5 * 3.5 = 17.5 + 2", {}),
        ("1 / 4 = 0.25%", {}),
        ("500 + 1200 = 1,700 + 1", {}),
        ("The answer is 7.", {}),
        ("", {}),
    ],
)
def test_a_calculator_says_what_wrong_results_come_to(text, instead):
    assert computed_results(text) == instead


def test_results_that_are_squared_over_and_over_do_not_grow_without_end():
    begun = time.perf_counter()
    computed_results("\n".join(["99 * 99 = 99"] * 1500))
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize(
    ("text", "gold", "score", "parsable"),
    [
        ("24 + 39 = 53\n53 - 4 = 48\nThe answer is 48.", "59", 1.0, 1.0),
        ("24 - 39 = 59\nThe answer is 59.", "59", 0.0, 1.0),  # a right result of a wrong calculation is wrong
        ("24 + 39 = 53\nThe answer is 48.", "63", 0.0, 1.0),  # the answer is another number than the result
        ("The answer is 59.", "59", 1.0, 1.0),
        ("59 / 0 = 59", "59", 1.0, 1.0),
        ("24 + 39 = 63. (63 - 4) * 2 = 118. The answer is 118.", "63", 0.0, 1.0),  # equations that are not read do not count
        ("24 + 39 = 63. (63 - 4) * 2 = 118. The answer is 118.", "118", 1.0, 1.0),
        ("2 * 3 = 6\n6^2 = 36\nThe answer is 36.", "36", 1.0, 1.0),
        ("The answer is 7.\n1 + 62 = 0", "63", 0.0, 1.0),
        ("2 + 3 = 5\n5 apples * 4 = 20 apples. The answer is 20.", "20", 1.0, 1.0),
        ("The answer is 5. To check: 5 + 3 = 8", "5", 1.0, 1.0),
        ("2.99 / 12 = 0.249167\nThe answer is 0.25.", "0.25", 1.0, 1.0),
        ("I do not know.", "59", 0.0, 0.0),
    ],
)
def test_the_calculator_scores_what_an_answer_calculates(text, gold, score, parsable):
    reward = calculator(text, Task("How many are left?", gold, "calculator"))
    assert (reward.score, reward.parts["parsable"]) == (score, parsable)


def test_what_is_said_of_a_wrong_answer_tells_that_it_was_computed():
    said = calculator("24 + 39 = 53. The answer is 53.", Task("How many?", "7", "calculator")).words
    assert "63" in said and said.endswith("That is what your sums come to with a calculator.")


def test_answers_that_calculate_the_same_vote_for_the_same():
    task = Task("How many?", verifier="calculator")
    assert vote("24 + 39 = 53", task) == vote("39 + 24 = 1", task) == vote("The answer is 63.", task) == "63"
