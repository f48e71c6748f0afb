"""The gap between what is known and what is said, by hand."""

import pytest

from etude.evaluation.latent_knowledge import QuestionFacts, gap_closed, measure_gap


def of(leads, elsewhere=None, right_samples=0, greedy=False):
    own, other = (tuple(layer == "1" for layer in each) for each in (leads, elsewhere or "0" * len(leads)))
    return QuestionFacts(own, other, right_samples, greedy)


@pytest.mark.parametrize(
    ("leads", "first", "is_lost"),
    [("1111", 0, False), ("0011", 2, False), ("1001", 3, False), ("1110", None, True), ("0110", None, True), ("0010", None, False)],
)
def test_an_answer_leads_from_where_it_is_not_overtaken_again(leads, first, is_lost):
    assert of(leads).leads_from == first
    rows = measure_gap([of(leads)], 1), measure_gap([of("0" * len(leads), leads)], 1)
    assert [(row["lost"], row["lost_chance"]) for row in rows] == [(is_lost, False), (False, is_lost)]


def test_right_answers_lead_from_where_they_do_more_often_than_those_of_other_questions():
    found = [of("1111", "1110") for _ in range(20)] + [of("0111", "0010") for _ in range(20)] + [of("0000", "1000") for _ in range(5)]
    row = measure_gap(found, 1)
    assert row["leads_after"] == pytest.approx([20 / 45, 40 / 45, 40 / 45, 40 / 45])
    assert row["chance_after"] == pytest.approx([25 / 45, 20 / 45, 40 / 45, 0])
    assert row["leads_from"] == 3  # after layer 2 they are level
    assert measure_gap([of("11", "11")] * 40, 1)["leads_from"] is None


def test_the_gap_is_between_what_is_in_the_samples_and_what_is_said_at_once():
    found = [
        of("001", right_samples=2),
        of("011", right_samples=4, greedy=True),
        of("110", "001"),
        of("000", right_samples=1, greedy=True),
    ]
    row = measure_gap(found, 4)
    assert (row["n"], row["k"], row["likelihood"], row["chance"], row["pass_at_k"], row["greedy"]) == (4, 4, 0.5, 0.25, 0.75, 0.5)
    assert (row["unsaid"], row["unsaid_likelihood"], row["lost"]) == (0.25, 0.25, 0.25)
    assert row["sampled"] == 7 / 16
    assert row["leads_after"] == [0.25, 0.5, 0.5] and row["chance_after"] == [0, 0, 0.25]
    assert row["greedy_low"] < 0.5 < row["greedy_high"]


def test_a_method_may_close_the_gap_or_widen_it():
    row = {"greedy": 0.5, "pass_at_k": 0.75}
    assert [gap_closed(accuracy, row) for accuracy in (0.5, 0.75, 0.25)] == [0, 1, -1]
    assert gap_closed(0.5, {"greedy": 0.5, "pass_at_k": 0.5}) is None
