"""What an attempt's length does to the credit it earns, and to nothing else."""

from dataclasses import replace

import pytest

from etude.callbacks.overlong_penalty import over_length
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.learn.credit import CREDIT
from etude.learn.settings import Learning
from etude.learn.training_examples import by_credit
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group
from etude.tasks.task import Task


def attempt(length: int, finish: str = "stop") -> Attempt:
    return Attempt.of((1, 2), Completion(tuple(range(3, 3 + length)), (-0.5,) * length, "x", finish, key=0, policy_version=0))


GROUP = Group(Task("q", "a"), (attempt(8), attempt(13), attempt(16, "length")))
VERDICTS = [[Verdict(1.0), Verdict(1.0), Verdict(0.0)]]
HOW = LengthControl(buffer_tokens=4)


def test_the_penalty_by_hand():
    paper = {10: 0.0, 12: 0.0, 13: 0.25, 14: 0.5, 16: 1.0}  # eq. 13 with L_max 16, L_cache 4, signs turned
    assert {length: over_length(length, 16, 4) for length in paper} == paper
    assert over_length(16, 16, 0) == 0.0


def test_credit_goes_by_lowered_scores_and_verdicts_keep_theirs():
    (row,), metrics = controlled([GROUP], VERDICTS, HOW, 16)
    assert [verdict.score for verdict in row] == [1.0, 1.0, 0.0]
    (weights,) = token_weights([GROUP], [row], "centred")
    mean = (1 + 0.75 - 1) / 3
    assert [own[0] for own in weights] == pytest.approx([1 - mean, 0.75 - mean, -1 - mean])
    assert metrics == {"penalised": pytest.approx(2 / 3), "length_penalty": pytest.approx(1.25 / 3), "masked": 0.0}


@pytest.mark.parametrize("credit", CREDIT)
def test_without_control_verdicts_and_lessons_are_as_they_were(credit):
    for how in (NO_CONTROL, LengthControl(buffer_tokens=4, penalty=0.0)):
        rows, _ = controlled([GROUP], VERDICTS, how, 16)
        assert rows == VERDICTS
        assert by_credit([GROUP], rows, credit=credit, length=how) == by_credit([GROUP], VERDICTS, credit=credit)
    assert controlled([GROUP], VERDICTS, NO_CONTROL, 16)[1] == {}


def test_of_right_answers_shorter_ones_are_better_where_length_costs():
    alike = [[Verdict(1.0)] * 3]
    assert by_credit([GROUP], alike, credit="centred") == [[]]
    rows, _ = controlled([GROUP], alike, replace(HOW, penalty=0.5), 16)
    (examples,) = by_credit([GROUP], rows, credit="centred")
    credit = [example.policy[0] for example in examples]
    assert credit == sorted(credit, reverse=True) and sum(credit) == pytest.approx(0)


def test_what_was_cut_off_enters_no_loss_and_counts_in_its_group():
    masked = LengthControl(mask_truncated=True)
    rows, metrics = controlled([GROUP], VERDICTS, masked, 16)
    assert rows == VERDICTS and metrics["masked"] == pytest.approx(1 / 3)
    (examples,) = by_credit([GROUP], rows, credit="centred", length=masked, with_anchor=True)
    assert [len(example.completion) for example in examples] == [8, 13]
    assert [example.policy[0] for example in examples] == pytest.approx([1 / 3, 1 / 3])  # the mean is that of all three


def test_an_attempt_without_a_score_stays_without_one():
    (row,), _ = controlled([GROUP], [[Verdict(1.0), Verdict(0.0), Verdict(None)]], HOW, 16)
    assert row[2] == Verdict(None) and token_weights([GROUP], [row], "centred")[0][2] == (0.0,) * 16


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LengthControl(buffer_tokens=-1), "overlong_penalty.buffer_tokens must be at least 0"),
        (lambda: LengthControl(penalty=-0.5), "overlong_penalty.penalty_weight must be 0 .none. or more, got -0.5"),
        (lambda: LengthControl(penalty=float("nan")), "overlong_penalty.penalty_weight must be 0 .none. or more, got nan"),
        (lambda: Learning("imitation", length=HOW), "learn.length changes credit, of which learn.method imitation makes nothing"),
        (lambda: Learning(credit="tree", length=HOW), "overlong_penalty.buffer_tokens lowers the scores of whole answers"),
    ],
)
def test_wrong_settings_are_one_sentence(make, said):
    with pytest.raises(UserError, match=said):
        make()
