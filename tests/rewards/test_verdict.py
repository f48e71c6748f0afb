"""Rewards of any range, and from where on one is right."""

import pytest

from etude.rewards.outcome import OutcomeFeedback
from etude.rewards.verdict import Verdict, turns_right
from etude.rewards.words import NOT_FULLY_RIGHT, NOT_RIGHT, words_of
from etude.tasks.task import Task
from etude.training.ledger import _verdict

MINE = """
import math
from etude.rewards.verdict import Verdict

def graded(text, task):
    if text == "nan":
        return math.nan
    return Verdict(float(text)) if text.startswith("+") else float(text)

graded.right_at = 15
"""


@pytest.mark.parametrize(
    ("score", "right_at", "is_right"),
    [(1.0, 1.0, True), (0.99, 1.0, False), (2.15, 1.0, True), (14.0, 15.0, False), (-1.0, -2.0, True), (None, -2.0, False)],
)
def test_an_attempt_is_right_from_its_verifiers_threshold_on(score, right_at, is_right):
    assert Verdict(score, right_at=right_at).is_right is is_right


def test_turns_are_right_by_the_same_threshold():
    assert turns_right(Verdict(20.0, turn_scores=(None, 3.0, 20.0), right_at=15.0)) == (False, False, True)


def test_scores_and_the_threshold_come_through_the_childs_pipe_and_a_setting_goes_before_the_verifiers_own(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    pairs = [(text, Task("q", verifier=f"{tmp_path / 'mine.py'}:graded")) for text in ("-5", "30", "15", "nan", "+30")]
    with OutcomeFeedback() as feedback:
        verdicts = feedback.judge(pairs)
        assert feedback.counts["crashed"] == 0
        feedback.right_at = 20.0
        others = feedback.judge(pairs)
    assert [verdict.score for verdict in verdicts] == [-5.0, 30.0, 15.0, None, 30.0]
    assert [verdict.right_at for verdict in verdicts] == [15.0, 15.0, 15.0, 1.0, 1.0]  # a Verdict brings its own
    assert verdicts[3].message == "the verifier returned nan, which is no score"
    assert [verdict.is_right for verdict in others] == [False, True, False, False, True]


def test_a_verdict_is_kept_in_the_ledger_with_its_threshold_and_one_of_before_thresholds_is_right_from_one_on():
    row = Verdict(17.5, right_at=15.0).to_json()
    assert _verdict(row) == Verdict(17.5, right_at=15.0)
    del row["right_at"]
    assert _verdict(row).is_right and not _verdict(row | {"score": 0.5}).is_right


@pytest.mark.parametrize(("score", "said"), [(3.0, NOT_FULLY_RIGHT), (0.0, NOT_RIGHT), (-4.0, NOT_RIGHT)])
def test_feedback_on_a_negative_reward_says_not_right(score, said):
    assert words_of(Verdict(score, right_at=15.0)) == said
