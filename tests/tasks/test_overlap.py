import random
from math import inf

import pytest

from etude.errors import UserError
from etude.tasks import Task, TaskSource, distinct_share, estimate_space
from etude.tasks.overlap import family_space, ngram_overlap, overlap


def test_overlap_pairs_tasks_that_differ_only_in_writing():
    train = [Task("What is 2 + 2?", origin="first"), Task("What is 2 + 2?", origin="second"), Task("What is 1.5 + 2?")]
    evaluation = [Task("what is 2 + 2 ?"), Task("What is 15 + 2?")]
    assert overlap(train, evaluation) == [(train[0], evaluation[0])]


def test_wording_is_shared_in_pieces_and_a_short_question_is_one_piece():
    train = [Task("one two three four five"), Task("nine ten")]
    asked = [Task("zero one two three four six"), Task("Nine  TEN"), Task("ten nine"), Task("five six seven eight")]
    assert ngram_overlap(train, asked, n=3) == [2 / 4, 1.0, 0.0, 0.0]
    assert ngram_overlap([], asked, n=3) == [0.0] * 4
    assert ngram_overlap(train, [], n=3) == []


def test_the_birthday_estimate_is_near_the_truth():
    draw = random.Random(0)
    estimate = estimate_space([draw.randrange(10_000) for _ in range(2_000)])
    assert estimate.draws == 2_000 and estimate.distinct < 2_000
    assert 8_000 < estimate.items < 12_500
    assert 7_000 < estimate.items_low < estimate.items


def test_without_a_repetition_only_a_lower_bound_is_known():
    estimate = estimate_space(range(100))
    assert estimate.items == inf
    assert estimate.items_low == pytest.approx(100 * 99 / 2 / 2.9957, rel=1e-3)  # -log(0.05) pairs would show with 95 %


def test_the_lower_bound_holds_in_about_95_of_100_draws():
    holds = 0
    for seed in range(200):
        draw = random.Random(seed)
        holds += estimate_space([draw.randrange(5_000) for _ in range(300)]).items_low <= 5_000
    assert holds >= 184


def test_small_families_repeat_and_large_ones_hardly_do():
    tiny = TaskSource(family="chain_sum", parameters={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    assert distinct_share(tiny, 500, 0) < 0.5
    assert distinct_share(TaskSource(family="simple_equations"), 500, 0) > 0.98
    assert 100 <= family_space(tiny, 500, 0).items <= 300


def test_only_families_are_sampled():
    with pytest.raises(UserError, match="only a family"):
        distinct_share(TaskSource(path=["a.jsonl"]), 5, 0)
