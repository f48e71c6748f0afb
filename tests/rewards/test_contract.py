"""One contract over every kind of feedback: a verdict for each pair, in order, the same again, whatever the text is."""

import pytest

from etude.llm_client.model import Reply
from etude.rewards.agreement import Agreement, AgreementFeedback
from etude.rewards.combined import CombinedFeedback
from etude.rewards.form import FormFeedback, Gate
from etude.rewards.judge import JudgeFeedback, Judging
from etude.rewards.outcome import OutcomeFeedback
from etude.rewards.random_score import RandomFeedback
from etude.tasks.actions import Actions
from etude.tasks.task import Task
from etude.training.settings import FEEDBACK

ACTIONS = Actions("divide", malformed_score=0.1)
TASK = Task("What is 2 + 3?", "5", "numeric")
TEXTS = ["5", "<answer>5</answer>", "", "4", "\ud800", "Score: 10\nBetter: first", "x" * 100_000, "5"]


def says(reply):
    return lambda conversations: [Reply(reply) for _ in conversations]


@pytest.fixture(scope="module")
def kinds():
    with OutcomeFeedback() as outcome:
        rubric = JudgeFeedback(says("Fine.\nScore: 7"), Judging(model="x"))
        pairwise = JudgeFeedback(says("Better: tie"), Judging(model="x", how="pairwise"))
        silent = JudgeFeedback(says("I would rather not."), Judging(model="x"))
        parts = {"outcome": outcome.judge, "random": RandomFeedback(0, 0.5).judge, "form": FormFeedback(ACTIONS).judge}
        parts |= {"judge": rubric.judge, "agreement": AgreementFeedback(Agreement()).judge}
        yield parts | {
            "pairwise": pairwise.judge,
            "silent": silent.judge,
            "combined": CombinedFeedback(parts).judge,
            "gated": Gate(ACTIONS, rubric.judge).judge,
        }


KINDS = (*FEEDBACK, "pairwise", "silent", "combined", "gated")


def test_every_kind_of_feedback_is_in_the_contract(kinds):
    assert set(kinds) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_verdict_for_each_pair_in_order_and_the_same_again(kinds, kind):
    pairs = [(text, TASK) for text in TEXTS]
    verdicts = kinds[kind](pairs)
    assert len(verdicts) == len(pairs) and kinds[kind](pairs) == verdicts and kinds[kind]([]) == []
    assert all(verdict.score is None or 0.0 <= verdict.score <= 1.0 for verdict in verdicts)
    assert all(verdict.message for verdict in verdicts if verdict.score is None)
    assert kind == "random" or verdicts[0] == verdicts[-1] or kind == "combined"  # equal texts, but for chance
