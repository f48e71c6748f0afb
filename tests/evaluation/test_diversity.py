"""How different attempts are, by hand."""

import pytest

from etude.evaluation.diversity import distinct_share, diversity, solution_form


def test_measures_by_hand():
    texts = [["The answer is 7.", "7", "8", "It is 9"], ["a", "b", "a", "b"]]
    found = diversity(texts, [["7", "7", "8", "9"], ["a", "b", "a", "b"]], [[True, True, False, False], [False] * 4])
    assert found["distinct_answers"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found["distinct_forms"] == pytest.approx((3 / 4 + 2 / 4) / 2)  # "7" and "8" are alike
    assert [found[f"pass_at_{k}"] for k in (1, 2, 4)] == pytest.approx([2 / 4 / 2, 5 / 6 / 2, 1 / 2])
    assert "pass_at_8" not in found


def test_attempts_without_an_answer_have_none_in_common():
    assert distinct_share([["7", None, None, "8"]]) == 3 / 4


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Sam had 9 - 4 = 5.", "@ had # - # = #."),
        ("  he  has\n-1,000.5 left", "he has # left"),
        ("5-3 is (4)-2", "#-# is (#)-#"),
        ("= -3, +4", "= #, #"),
        ("Sam's and Zoë-Ann's 3rd", "@ and @ #rd"),
        ("", ""),
    ],
)
def test_a_form_is_what_is_left_without_numbers_and_names(text, form):
    assert solution_form(text) == form


def test_alike_is_one_over_the_number_and_all_different_is_one():
    assert diversity([["a"] * 4], [["a"] * 4], [[False] * 4])["distinct_answers"] == 1 / 4
    assert diversity([["a", "b", "c"]], [["a", "b", "c"]], [[True] * 3]) == {
        "distinct_answers": 1.0,
        "distinct_forms": 1.0,
        "pass_at_1": 1.0,
        "pass_at_2": 1.0,
    }
