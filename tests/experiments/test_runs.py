"""Intervals over runs and the rule by which claims are judged, by examples that can be worked out by hand."""

from math import sqrt
from statistics import stdev

import pytest

from experiments import runs


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)])
def test_quantiles_are_those_of_the_tables(freedom, quantile):
    assert runs.t_quantile(0.975, freedom) == pytest.approx(quantile, abs=5e-4)


def test_an_interval_over_runs_is_students():
    low, high = runs.run_interval([0.1, 0.2, 0.3])
    half = 4.30265 * 0.1 / sqrt(3)
    assert (low, high) == (pytest.approx(0.2 - half, abs=1e-5), pytest.approx(0.2 + half, abs=1e-5))


def test_one_run_has_no_interval():
    assert runs.run_interval([0.2]) is None
    assert runs.over_runs("gain", [0.2]) == {"gain_each_seed": [0.2]}
    assert runs.in_points([0.2]) == "+20.0 in one run"


def test_a_row_has_every_seed_and_both_ends():
    found = runs.over_runs("gain", [0.12345678, 0.2])
    assert found["gain_each_seed"] == [0.1235, 0.2]
    assert (found["gain_run_low"], found["gain_run_high"]) == runs.run_interval([0.12345678, 0.2])


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.09, 0.09, 0.09], True),
        ([0.001, 0.1, 0.2], True),
        ([0.08, 0.08, 0.08], None),  # not by more than 8 points
        ([-0.001, 0.2, 0.2], None),  # one disagrees
        ([-0.09, -0.09, -0.09], False),
        ([-0.2, -0.2, 0.0], None),
        ([0.5], None),
        ([-0.5], None),
        ([], None),
        ([0.01, 0.011, 0.012, 0.011, 0.01], True),  # five agree closely: their interval is above 0
        ([-0.01, -0.011, -0.012, -0.011, -0.01], False),
        ([0.3, 0.3, 0.3, 0.3, -0.9], None),
    ],
)
def test_the_rule_is_the_same_on_both_sides(differences, verdict):
    assert runs.is_above(differences) is verdict
    assert runs.is_below([-value for value in differences]) is verdict
    assert runs.is_above([value + 0.15 for value in differences], 0.15) is verdict


def test_fewer_seeds_have_to_be_as_far_beyond_the_bound_as_a_study_says():
    assert runs.is_above([0.6, 0.7, 0.5], least=0.5) is True and runs.is_above([0.2, 0.7, 0.5], least=0.5) is None


def test_what_is_seen_shrinks_with_the_number_of_seeds():
    few, many = runs.power_of([0.0, 0.08, 0.04]), runs.power_of([0.0, 0.08, 0.04] * 4)
    assert few["seeds"] == 3 and few["sd"] == stdev([0.0, 0.08, 0.04])
    assert few["seen"] == pytest.approx(0.08 + 1.06066 * 0.04 / sqrt(3), abs=1e-5) and many["seen"] < few["seen"] / 2
    by_interval = runs.power_of([0.0, 0.08, 0.04], least=None)["seen"]
    assert by_interval == pytest.approx((4.30265 + 1.06066) * 0.04 / sqrt(3), abs=1e-5)
    assert runs.power_of([0.1]) == {"seeds": 1}
