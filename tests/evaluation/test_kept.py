"""What is left of what the start knew and did: by hand."""

import pytest

from etude.errors import UserError
from etude.evaluation.kept import Answered, above_chance, kept_and_new, still_known
from etude.evaluation.statistics import ratio_of_sums


def answered(*margins, chance=0.25):
    return [Answered(margin, margin > 0, chance) for margin in margins]


def test_of_the_questions_known_with_a_margin_those_whose_right_choice_is_still_likeliest_count():
    before, after = answered(2.0, 1.0, 0.9, -3.0), answered(0.1, -0.1, -5.0, 4.0)
    assert still_known(before, after, margin=1.0) == [True, False]
    assert still_known(before, after, margin=0.0) == [True, False, False]
    assert still_known(before, before, margin=0.5) == [True, True, True]
    assert still_known(before, after, margin=9.0) == []


def test_a_loss_counts_against_what_was_above_chance():
    before = answered(*[1.0] * 40, *[-1.0] * 60)  # 40 % right where chance is 25 %
    after = answered(*[1.0] * 34, *[-1.0] * 66)
    value, low, high = above_chance(before, after)
    assert value == pytest.approx(9 / 15) and low < value < high
    assert above_chance(before, before) == (1.0, 1.0, 1.0)


def test_chance_is_that_of_each_question():
    before = answered(1.0, 1.0, chance=0.5) + answered(1.0, chance=0.25)
    after = answered(1.0, -1.0, chance=0.5) + answered(1.0, chance=0.25)
    assert above_chance(before, after)[0] == pytest.approx(0.75 / 1.75)


def test_of_a_start_at_chance_nothing_is_told():
    assert above_chance(answered(*[1.0] * 26, *[-1.0] * 74), answered(*[1.0] * 10, *[-1.0] * 90)) is None


def test_right_answers_are_kept_or_new():
    kept, new = kept_and_new([True, True, False, False], [True, False, False, True])
    assert (kept, new) == ([True, False], [False, True])


def test_the_interval_of_a_ratio_is_over_pairs_and_covers_a_known_ratio():
    tops, bottoms = [float(i % 5) for i in range(200)], [4.0] * 200
    value, low, high = ratio_of_sums(tops, bottoms)
    spread = 2**0.5 / 4 / 200**0.5  # the standard deviation of 0 to 4 is the root of 2
    assert value == pytest.approx(0.5) and (low, high) == (
        pytest.approx(0.5 - 1.96 * spread, abs=0.01),
        pytest.approx(0.5 + 1.96 * spread, abs=0.01),
    )
    assert ratio_of_sums(tops, bottoms) == (value, low, high)
    assert ratio_of_sums([1.0, 1.0], [1.0, -1.0]) is None
    with pytest.raises(UserError, match="at least one pair"):
        ratio_of_sums([], [])
