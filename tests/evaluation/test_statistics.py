"""Intervals and tests: by hand, against enumeration and published examples, at their limits."""

from itertools import combinations, product
from math import comb, isclose

import pytest

from etude.errors import UserError
from etude.evaluation.statistics import PairedTest, mean_interval, paired_test, pass_at_k, sign_flip_test, wilson_interval


def answers(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Two models' answers with the given 2 x 2 table."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    return first, second


@pytest.mark.parametrize(("successes", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)])
def test_wilson_interval_equals_published_values(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3."""
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_solves_its_equation() -> None:
    """Both ends are the p at which |share - p| = z sqrt(p (1 - p) / n)."""
    for end in wilson_interval(7, 23, confidence=0.95):
        assert isclose(abs(7 / 23 - end), 1.959963984540054 * (end * (1 - end) / 23) ** 0.5, rel_tol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
def test_wilson_interval_touches_the_ends_exactly_and_keeps_a_width(n: int) -> None:
    low, high = wilson_interval(0, n)
    assert low == 0.0 and 0.0 < high < 1.0
    assert wilson_interval(n, n) == (pytest.approx(1 - high), 1.0)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_pass_at_k_equals_enumeration_of_all_subsets() -> None:
    for n in range(1, 7):
        for correct, k in product(range(n + 1), range(1, n + 1)):
            subsets = list(combinations(range(n), k))
            hits = sum(any(attempt < correct for attempt in subset) for subset in subsets)
            assert isclose(pass_at_k(n, correct, k), hits / len(subsets), abs_tol=1e-12)


def test_pass_at_k_at_its_limits() -> None:
    assert pass_at_k(10, 3, 1) == 0.3 and pass_at_k(10, 6, 5) == 1.0
    assert pass_at_k(20_000, 1, 10_000) == 0.5


def test_mean_interval_is_the_quantile_of_all_resamples() -> None:
    """Two values have four equally likely resamples: means 0, 1/2, 1/2, 1. The middle 40 % is at 1/2, the middle 60 % reaches out."""
    assert mean_interval([0.0, 1.0], 0.4) == (0.5, 0.5)
    assert mean_interval([0.0, 1.0], 0.6) == (0.0, 1.0)


def test_mean_interval_encloses_the_mean_and_is_reproducible() -> None:
    values = [i / 99 for i in range(100)]
    low, high = mean_interval(values)
    assert (low, high) == mean_interval(values)
    assert (low, high) != mean_interval(values, seed=1)
    spread = 1.96 * (sum((v - 0.5) ** 2 for v in values) / 100) ** 0.5 / 10
    assert low == pytest.approx(0.5 - spread, abs=0.01) and high == pytest.approx(0.5 + spread, abs=0.01)


def test_mean_interval_does_not_depend_on_the_resamples_per_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.1, 0.4, 0.7, 0.2, 0.9]
    whole = mean_interval(values, resamples=501)
    monkeypatch.setattr("etude.evaluation.statistics._DRAWS_AT_ONCE", 35)
    assert mean_interval(values, resamples=501) == whole


def test_mcnemar_equals_direct_enumeration() -> None:
    """Every discordant pair is a fair coin; the p-value is the share of outcomes at least as uneven as the one seen."""
    for only_first, only_second in product(range(6), repeat=2):
        flips = only_first + only_second
        outcomes = [abs(2 * sum(coins) - flips) for coins in product((0, 1), repeat=flips)]
        expected = sum(outcome >= abs(only_first - only_second) for outcome in outcomes) / len(outcomes)
        assert isclose(paired_test(*answers(3, only_first, only_second, 2)).p_value, expected)
    assert paired_test(*answers(5, 1, 7, 5)).p_value == 18 / 256  # by hand: 2 (C(8, 0) + C(8, 1)) / 2^8


def test_mcnemar_holds_for_thousands_of_items() -> None:
    assert paired_test(*answers(0, 5000, 5000, 0)).p_value == 1.0
    assert paired_test(*answers(10, 0, 5000, 0)).p_value == 0.0  # 2^-4999 is below the smallest float
    expected = 2 * sum(comb(4000, i) for i in range(1901)) / 2**4000
    assert paired_test(*answers(0, 1900, 2100, 0)).p_value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [((14, 0, 5, 22), 0.0115, 0.2265), ((20, 2, 12, 16), 0.0562, 0.3292), ((1, 7, 1, 12), -0.5069, -0.0256)],
)
def test_difference_interval_equals_worked_examples(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """Altman et al., Statistics with Confidence (2000), table 6.2; Newcombe (1998), method 10; Fagerland et al. (2017), Bentur's data."""
    test = paired_test(*answers(*table))
    assert (test.difference_low, test.difference_high) == pytest.approx((low, high), abs=1e-4)


def test_swapping_the_models_mirrors_the_test() -> None:
    first, second = answers(9, 2, 7, 4)
    there, back = paired_test(first, second), paired_test(second, first)
    assert there == PairedTest(22, 2, 7, 5 / 22, there.difference_low, there.difference_high, there.p_value)
    assert back.difference == -there.difference and back.p_value == there.p_value
    assert (back.difference_low, back.difference_high) == pytest.approx((-there.difference_high, -there.difference_low))


@pytest.mark.parametrize("table", [(8, 0, 0, 0), (0, 0, 0, 8), (4, 0, 0, 4), (0, 0, 8, 0), (0, 8, 0, 0), (1, 0, 0, 0)])
def test_paired_test_at_its_limits(table: tuple[int, int, int, int]) -> None:
    test = paired_test(*answers(*table))
    assert -1.0 <= test.difference_low <= test.difference <= test.difference_high <= 1.0
    assert test.difference_low < test.difference_high
    assert (test.p_value == 1.0) == (test.only_first == test.only_second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson_interval(3, 2), "must be in"),
        (lambda: wilson_interval(-1, 2), "must be in"),
        (lambda: wilson_interval(1, 2, 1.0), "must be in"),
        (lambda: pass_at_k(4, 1, 8), r"k must be in \[1, n\] with n = 4 attempts, got 8"),
        (lambda: mean_interval([]), "finite"),
        (lambda: mean_interval([0.5, float("nan")]), "finite"),
        (lambda: paired_test([True], [True, False]), "got 1 and 2"),
        (lambda: paired_test([], []), "at least one item"),
    ],
)
def test_what_has_no_statistics_is_refused(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("differences", [[1], [3, -1, 2], [1, 1, 0, -1, 2], [2, -2, 0], [0, 0], [3, 3, 3, 3]])
def test_the_sign_flip_test_equals_enumeration_of_all_signs(differences: list[int]) -> None:
    sums = [sum(sign * d for sign, d in zip(signs, differences, strict=True)) for signs in product((-1, 1), repeat=len(differences))]
    expected = sum(abs(total) >= abs(sum(differences)) for total in sums) / len(sums)
    assert sign_flip_test(differences) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 5), (12, 30), (200, 400), (7, 7)])
def test_the_sign_flip_test_of_single_answers_is_mcnemars(only_first: int, only_second: int) -> None:
    first, second = answers(20, only_first, only_second, 20)
    differences = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
    assert sign_flip_test(differences) == pytest.approx(paired_test(first, second).p_value, rel=1e-9)
