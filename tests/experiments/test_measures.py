"""Measures with intervals, and verdicts on them, by examples that can be worked out by hand."""

import pytest

from etude.evaluation.statistics import mean_interval, shares_interval, wilson_interval
from experiments import measures


def test_a_mean_stands_with_its_interval():
    assert measures.mean("gain", iter([0.0, 1.0, 0.5])) == {
        "gain": 0.5,
        "gain_low": mean_interval([0.0, 1.0, 0.5])[0],
        "gain_high": mean_interval([0.0, 1.0, 0.5])[1],
    }
    narrow, wide = (measures.mean("gain", [0.0, 1.0, 0.5, 0.2], confidence) for confidence in (0.5, 0.99))
    assert wide["gain_low"] < narrow["gain_low"] <= narrow["gain_high"] < wide["gain_high"]


def test_differences_are_what_comes_after_less_what_was_before():
    found = measures.mean_difference("gain", [0.25, 0.5], [1.0, 0.75])
    assert found["gain"] == 0.5 and found["gain_low"] >= 0.25 and found["gain_high"] <= 0.75
    with pytest.raises(ValueError, match="shorter"):
        measures.mean_difference("gain", [0.25, 0.5], [1.0])


def test_shares_have_wilsons_interval_where_each_answer_is_right_or_wrong():
    assert tuple(measures.share("accuracy", 3, 4).values()) == (0.75, *wilson_interval(3, 4))
    assert tuple(measures.mean_share("accuracy", [1.0, 0.0, 1.0, 1.0]).values()) == (0.75, *wilson_interval(3, 4))
    assert tuple(measures.mean_share("accuracy", [0.5, 1.0]).values()) == (0.75, *shares_interval([0.5, 1.0]))


def test_a_gain_is_positive_where_more_is_right_after():
    found = measures.gain("gain", [False, False, True, True], [True, True, True, False])
    assert found["gain"] == 0.25 and found["gain_low"] < 0.25 < found["gain_high"]


def test_arms_are_lacking_that_have_no_row_or_too_few_seeds():
    rows = {"one": {"seeds": 3}, "two": {"seeds": 2}}
    assert measures.lacking(rows, ("one", "two", "three"), 3) == ["two", "three"]
    assert measures.lacking(rows, ("one", "two"), lambda arm: 2 if arm == "two" else 3) == []
    assert measures.undecided(["two", "three"]) == ("undecided", "not all cells are there: two, three")
    assert measures.undecided() == ("undecided", "not all cells are there")


@pytest.mark.parametrize(
    ("parts", "verdict"),
    [
        ({"a": True, "b": True}, "holds"),
        ({"a": True, "b": False}, "does not hold"),
        ({"a": True, "b": None}, "undecided"),
        ({"a": None, "b": False}, "does not hold"),
    ],
)
def test_a_claim_of_several_parts_holds_where_all_do(parts, verdict):
    assert measures.all_hold(parts, unclear="open")[0] == verdict


def test_what_became_of_each_part_is_told():
    assert measures.all_hold({"a": True, "b": None}, ["said"], "open")[1] == "said; holds: a; open: b"


def test_points_are_written_with_their_interval():
    row = measures.with_ends("gain", 0.0149, (-0.002, 0.03))
    assert measures.in_points(row, "gain") == "+1.5 [-0.2, +3.0]"
    assert measures.in_points(row, "gain", sign="", unit=" %") == "1.5 % [-0.2, 3.0]"
