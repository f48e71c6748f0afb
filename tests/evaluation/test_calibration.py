"""Calibration by hand."""

import pytest

from etude.evaluation.calibration import expected_calibration_error, risk_coverage


def test_who_is_right_as_often_as_is_said_has_no_error():
    assert expected_calibration_error([0.5] * 4 + [1.0] * 3, [True, False, True, False, True, True, True]) == 0
    assert expected_calibration_error([1.0, 1.0], [False, False]) == 1
    assert expected_calibration_error([0.0, 0.0, 0.8], [False, True, True]) == pytest.approx((0.5 * 2 + 0.2) / 3)


def test_the_surest_answers_come_first_and_equals_together():
    assert risk_coverage([0.2, 0.9], [False, True]) == [0.0, 0.5]
    assert risk_coverage([0.9, 0.2], [False, True]) == [1.0, 0.5]
    assert risk_coverage([0.5] * 4, [True, False, False, False]) == pytest.approx([0.75] * 4)
