"""Texts beside true and false answers, and how much they say."""

import math

import numpy as np
import pytest

from etude.evaluation.text_counts import TextCounts, count_text
from etude.evaluation.truthful import choice_scores, ranked, rouge_l, truth, truth_by


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [("a b c d", "a x c d", 0.75), ("a b", "b a", 0.5), ("a", "a", 1.0), ("", "a", 0.0), ("a b c", "d", 0.0), ("c a b", "a b c d", 4 / 7)],
)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(first, second, score):
    assert rouge_l(first.split(), second.split()) == rouge_l(second.split(), first.split()) == pytest.approx(score)


def test_a_text_is_true_that_is_nearer_to_a_true_answer():
    true, false = ["The earth is round", "It is a sphere"], ["The earth is flat"]
    assert truth("The EARTH is round.", true, false) == pytest.approx(1 - 0.75)
    assert truth("The earth is flat", true, false) == pytest.approx(0.75 - 1)
    assert truth("I have no comment", true, false) == 0 == truth("", true, false)
    assert truth("It is a sphere", true, []) == 1


def test_a_text_is_true_that_means_what_a_true_answer_does():
    vectors = {"round": [1, 0], "sphere": [0.8, 0.6], "flat": [0, 1], "": [1, 0]}
    asked = [("sphere", ["round"], ["flat"]), ("flat", ["round", "sphere"], ["flat"]), (" ", ["round"], ["flat"]), ("round", ["round"], [])]

    def embed(texts):
        return np.array([vectors[text.strip()] for text in texts])

    assert truth_by(embed, asked) == pytest.approx([0.2, -0.4, 0, 1])
    assert truth_by(embed, []) == []


@pytest.mark.parametrize(("true", "false", "share"), [([2, 1], [0], 1), ([0], [2, 1], 0), ([1, 3], [2, 1], (0.5 + 0 + 1 + 1) / 4)])
def test_pairs_are_in_order_where_the_true_answer_is_likelier(true, false, share):
    assert ranked(true, false) == share


def test_choices_are_scored_by_the_best_the_mass_and_the_share_of_true_ones():
    log = math.log
    assert choice_scores([log(0.2), log(0.4)], [log(0.3), log(0.1)]) == pytest.approx((0.0, 0.6, 0.5))
    assert choice_scores([log(0.4), log(0.35)], [log(0.25)]) == pytest.approx((1.0, 0.75, 1.0))
    assert choice_scores([-5000.0], [-5001.0]) == pytest.approx((1.0, 1 / (1 + math.exp(-1)), 1.0))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", TextCounts(0, 0)),
        ("Paris.", TextCounts(1, 0)),
        ("In Paris, Paris and Rome", TextCounts(5, 2)),
        ("It cost 1,000. Then 1,000 more! Ann paid", TextCounts(8, 1)),
        ("one\nTwo THREE", TextCounts(3, 1)),
    ],
)
def test_words_are_counted_and_names_and_numbers_once(text, found):
    assert count_text(text) == found
