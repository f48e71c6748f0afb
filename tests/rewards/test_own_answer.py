"""What a model's own answer, made of several attempts, says of these attempts."""

from collections import Counter

import pytest

from etude.rewards.own_answer import OwnAnswer, rewards_by
from etude.tasks.task import Task

SUM = Task("3 + 4?", verifier="numeric")
TEXTS = ["It is 7.", "8", "7", "I do not know"]


def scores(answer, texts=TEXTS, *, min_share=0.0, by_tokens=False, counts=None):
    found = rewards_by(answer, texts, SUM, min_share=min_share, by_tokens=by_tokens, counts=Counter() if counts is None else counts)
    return [reward.score for reward in found]


def test_the_decoded_answer_is_right_different_votes_are_wrong_and_equal_votes_unscored():
    assert scores(OwnAnswer("7", True)) == [None, 0.0, None, 0.0, 1.0]
    assert scores(OwnAnswer("9", True)) == [0.0, 0.0, 0.0, 0.0, 1.0]  # which no attempt gives


@pytest.mark.parametrize(
    ("answer", "own", "words"),
    [
        (OwnAnswer(None, False), 0, "no answer that can be read"),
        (OwnAnswer("no number", True), 1, "no answer that can be read"),
        (OwnAnswer("7", False), 1, "cut off"),
    ],
)
def test_a_missing_answer_leaves_the_task_out_and_is_counted(answer, own, words):
    counts = Counter()
    assert scores(answer, counts=counts) == [None] * (4 + own)
    assert counts == {"own_answers": 1, "own_answers_abstained": 1}
    found = rewards_by(answer, TEXTS, SUM, min_share=0.0, by_tokens=False, counts=counts)
    assert all(words in reward.message for reward in found)


def test_too_little_agreement_with_the_answer_leaves_the_task_out():
    assert scores(OwnAnswer("7", True), min_share=0.5)[-1] == 1.0
    assert scores(OwnAnswer("7", True), min_share=0.51) == [None] * 5
    assert scores(OwnAnswer("9", True), min_share=0.1) == [None] * 5


def test_token_agreement_is_a_mean_over_tokens():
    answer = OwnAnswer("9", True, (1.0, 0.5))
    assert scores(answer, min_share=0.75, by_tokens=True)[-1] == 1.0
    assert scores(answer, min_share=0.76, by_tokens=True) == [None] * 5
    assert scores(OwnAnswer("9", True), min_share=0.1, by_tokens=True) == [None] * 5  # of which nobody knows
