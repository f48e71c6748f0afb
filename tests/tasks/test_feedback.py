"""What the model is told of an answer says nothing of the right one."""

import random

import pytest

from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.feedback import NOT_CHECKED, NOT_FULLY_RIGHT, NOT_RIGHT, words_of
from etude.tasks.functions import to_reward
from etude.tasks.reward import Reward
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS

CHOICES = {"choices": ["a stone", "a pear", "a chair", "a road"]}
GOLDS = {
    "exact": ["Paris", "Rome", "Oslo", "Quito"],
    "numeric": ["517", "6204.5", "-91", "3/8"],
    "calculator": ["517", "6204.5", "-91", "3/8"],
    "words": ["Paris", "the left ventricle", "red blood", "Quito"],
    "choice": ["A", "B", "C", "D"],
    "math": ["517", "x+91", r"\frac{3}{8}", "sqrt(7)"],
}
TEXTS = {
    "exact": ["Lima", "The answer is Bern.", "It is Bern", "", "12", "\n\t", "[1, 2]", "q" * 500],
    "numeric": ["12", "The answer is 44.", "none", "5 or 6", "The answer is 7, 8 or 9", "", "1" * 300],
    "calculator": ["12", "3 + 4 = 8", "none", "5 or 6", "", "1" * 300],
    "words": ["Lima", "The answer is Bern.", "", "...", "q" * 500],
    "choice": ["A or B", "E", "no idea", "", "The answer is a table"],
    "math": ["12", "$y-2$", "no idea", "", r"\boxed{\frac{1}{2}}"],
}


@pytest.mark.parametrize("verifier", GOLDS)
def test_feedback_does_not_depend_on_the_gold_answer(verifier):
    for text in TEXTS[verifier]:
        rewards = [VERIFIERS[verifier](text, Task("?", gold, verifier, metadata=CHOICES)) for gold in GOLDS[verifier]]
        assert {reward.score for reward in rewards} == {0.0}
        assert len({reward.words for reward in rewards}) == 1 and rewards[0].words
        assert not any(gold in reward.words for gold in GOLDS[verifier] for reward in rewards if len(gold) > 1)


@pytest.mark.parametrize("verifier", [*GOLDS, "reasoning_gym"])
def test_a_right_answer_needs_no_words(verifier):
    if verifier == "reasoning_gym":
        (task,) = load_tasks(TaskSource(family="chain_sum"), split="train", n=1, seed=0)
    else:
        task = Task("?", GOLDS[verifier][0], verifier, metadata=CHOICES)
    reward = VERIFIERS[verifier](task.answer, task)
    assert (reward.score, reward.words) == (1.0, "")


@pytest.mark.parametrize("family", ["chain_sum", "gcd", "number_sorting", "spell_backward", "simple_equations", "countdown", "puzzle24"])
def test_words_on_a_family_never_hold_its_answer(family):
    draw = random.Random(3)
    for task in load_tasks(TaskSource(family=family), split="train", n=5, seed=1):
        for text in ("", "no idea", "0", "1 + 1", "['3', '1']", "The answer is 0.", draw.choice(["zebra", "1e9"])):
            reward = VERIFIERS["reasoning_gym"](text, task)
            assert reward.score == 0.0 and reward.words
            assert (task.answer or "?") not in reward.words.replace(text, "")


@pytest.mark.parametrize(
    ("verifier", "gold", "text", "words"),
    [
        ("numeric", "7", "It is 12", "I read 12 as your answer, and it is not right."),
        ("numeric", "7", "no idea", "I found no number in your answer."),
        ("numeric", "7", "5 or 6", "I found no single number in your answer: 5 or 6 is not one number."),
        ("exact", "Rome", "Oslo\n", "I read 'Oslo' as your answer, and it is not right."),
        ("exact", "12", "Oslo", "I read 'Oslo' as your answer, and it does not have the form that the question asks for."),
        ("exact", "12", " ", "I found no answer."),
        ("choice", "A", "The answer is B", "I read B as your answer, and it is not right."),
        ("choice", "B", "A or B", "I found no single choice in your answer."),
        ("math", "12", "no idea", "I found no expression in your answer."),
    ],
)
def test_feedback_quotes_the_answer_that_was_read(verifier, gold, text, words):
    assert VERIFIERS[verifier](text, Task("?", gold, verifier)).words == words


def test_a_score_alone_is_not_right_or_not_fully_and_no_score_was_not_checked():
    assert words_of(to_reward(0.0)) == NOT_RIGHT and words_of(to_reward(0.4)) == words_of(to_reward(0.95)) == NOT_FULLY_RIGHT
    assert [words_of(Reward(score, right_at=15.0)) for score in (3.0, 0.0, -4.0)] == [NOT_FULLY_RIGHT, NOT_RIGHT, NOT_RIGHT]
    assert words_of(to_reward(None)) == words_of(Reward(None, message="timed out; expected 7")) == NOT_CHECKED
    assert words_of(Reward(0.0, message="expected 7")) == NOT_RIGHT


def test_the_step_with_the_largest_fall_in_value_is_quoted():
    steps = ["2 + 2 = 4\n", "4 * 3 = 13\n", "13 - 1 = 11"]
    found = words_of(Reward(0.0, step_values=(0.5, 0.75, 0.25, 0.0)), steps)  # falls of -0.25, 0.5 and 0.25
    assert found == "That is not right. It seems to go wrong in step 2: '4 * 3 = 13'"
    assert words_of(Reward(0.0, step_values=(0.0, 0.0, 0.5, 0.5)), steps) == NOT_RIGHT  # none falls
    assert words_of(Reward(0.0, step_values=(0.5, 0.0)), steps) == NOT_RIGHT  # values of other steps


def test_words_of_your_own_verifier_come_through_its_process_and_must_be_text(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from etude.tasks.reward import Reward\n"
        "def judge(text, task): return Reward(0.0, words=5 if text == 'odd' else 'colder \\ud800', turn_scores=(1.0,))\n"
    )
    task = Task("?", "7", f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward() as verifiers:
        told, odd = verifiers.judge([("a", task), ("odd", task)])
    assert words_of(told) == "colder ?" and told.turn_scores == ()
    assert odd.score is None and "words must be text" in odd.message
