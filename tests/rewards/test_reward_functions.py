"""Reward functions that are Python objects, in all the forms that users write them."""

import os
import threading
import time

import pytest

from etude.errors import UserError
from etude.rewards.functions import RewardFunction, in_process
from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.reward import Reward
from etude.tasks.task import Task

WORDS = {"fine"}
LOCK = threading.Lock()


def by_name(completion, answer):
    return float(completion == answer)


def of_a_group(prompts, completions, answer, **columns):
    assert len(prompts) == len(completions) == len(answer) == len(columns["hint"])
    return [1 / completions.count(text) for text in completions]


async def later(completions, **_):
    return [float(text in WORDS) for text in completions]


def as_a_verifier(text, task):
    return Reward(float(len(text)), {"letters": 3.0}, message=task.prompt, right_at=2.0)


def judged(function, texts, weights=None, metadata=None, **limits):
    functions = function if isinstance(function, list) else [function]
    reward = RewardFunction.of(functions, weights)
    task = Task("a question", "fine", reward.name, metadata={"hint": "h"} | (metadata or {}))
    with VerifierReward(function=reward, **limits) as verifiers:
        verifiers.prepare([task])
        found = verifiers.judge([(text, task) for text in texts])
        return found, verifiers.counts


@pytest.mark.parametrize("place", ["a process of its own", "this process"])
@pytest.mark.parametrize(
    ("function", "scores"),
    [
        (by_name, [1.0, 1.0, 0.0]),
        (lambda text: len(text), [4.0, 4.0, 3.0]),
        (lambda completion, hint, *, missing=2: missing * (completion != hint), [2.0, 2.0, 2.0]),
        (of_a_group, [0.5, 0.5, 1.0]),
        (later, [1.0, 1.0, 0.0]),
        (lambda completions, **_: [None, float("nan"), 0.5], [None, None, 0.5]),
        (as_a_verifier, [4.0, 4.0, 3.0]),
    ],
)
def test_every_form_of_a_function_gives_its_scores(function, scores, place, monkeypatch):
    if place == "this process":
        monkeypatch.setattr(function, "etude_in_process", True, raising=False)
    found, counts = judged(function, ["fine", "fine", "bad"])
    assert [reward.score for reward in found] == scores
    assert counts == {"judged": 3, "timed_out": 0, "crashed": 0}


def test_a_reward_keeps_its_parts_message_and_threshold():
    (found,), _ = judged(as_a_verifier, ["abc"])
    assert found == Reward(3.0, {"letters": 3.0}, message="a question", right_at=2.0) and found.is_right


def test_functions_are_added_up_with_their_weights_without_those_that_abstain():
    def some(completions, **_):
        return [2.0, None]

    found, _ = judged([by_name, some], ["fine", "fine"], weights=[1.0, 0.25])
    assert [reward.score for reward in found] == [1.5, 1.0]
    assert [dict(reward.parts) for reward in found] == [{"by_name": 1.0, "some": 2.0}, {"by_name": 1.0}]
    (alone,), _ = judged([by_name], ["fine"], weights=[0.5])
    assert alone.score == 0.5


def test_functions_of_one_name_are_told_apart():
    reward = RewardFunction.of([lambda x: 1, lambda x: 2, by_name])
    assert reward.names == ["lambda", "lambda_2", "by_name"] and reward.name == "python:lambda+lambda_2+by_name"


def test_a_fingerprint_changes_with_the_source_and_the_weights():
    first, other = RewardFunction.of([by_name]), RewardFunction.of([of_a_group])
    assert first.fingerprint == RewardFunction.of([by_name]).fingerprint
    assert len({first.fingerprint, other.fingerprint, RewardFunction.of([by_name], [2.0]).fingerprint}) == 3


def test_a_function_runs_elsewhere_unless_it_is_marked():
    def place(completion):
        return os.getpid()

    (away,), _ = judged(place, ["x"])
    assert away.score != os.getpid()
    (here,), _ = judged(in_process(place), ["x"])
    assert here.score == os.getpid()


def test_trouble_costs_a_group_and_nothing_else():
    def trouble(completions, kind, **_):
        if kind[0] == "hang":
            time.sleep(60)
        if kind[0] == "exit":
            os._exit(3)
        if kind[0] == "raise":
            raise KeyError("oh")
        return [1.0] if kind[0] == "short" else [1.0] * len(completions)

    reward = RewardFunction.of([trouble])
    kinds = ["well", "hang", "exit", "raise", "short", "well"]
    pairs = [(text, Task(f"{kind} {n}", None, reward.name, metadata={"kind": kind})) for n, kind in enumerate(kinds) for text in "ab"]
    with VerifierReward(0.3, function=reward) as verifiers:
        found = verifiers.judge(pairs)
        assert [reward.score for reward in found] == [1.0, 1.0, *[None] * 8, 1.0, 1.0]
        assert verifiers.counts == {"judged": 12, "timed_out": 2, "crashed": 6}
    messages = [reward.message for reward in found[2:10:2]]
    assert messages[0] == "timed out after 0.6 s" and "exit code 3" in messages[1] and "KeyError" in messages[2]
    assert "it must return a list with a number for each of the 2 completions, got 1 values" in messages[3]


def test_an_exception_in_this_process_is_unscored_and_counted():
    @in_process
    def wrong(completion):
        raise ValueError("no")

    found, counts = judged(wrong, ["a", "b"])
    assert [reward.message for reward in found] == ["the reward function raised ValueError: no"] * 2
    assert counts["crashed"] == 2


@pytest.mark.parametrize(
    ("functions", "weights", "sentence"),
    [
        ([lambda completion, solution: 1], None, "asks for 'solution', which is no column: there are hint, prompt, question, answer, task"),
        ([lambda completions, trainer_state: 1], None, "asks for 'trainer_state', which etude does not have"),
        ([lambda: 1], None, "takes no completion"),
        ([3], None, "expected a function, got 3"),
        ([by_name], [1, 2], "reward_weights has 2 numbers for 1 functions"),
        ([by_name], [float("inf")], "reward_weights must be finite numbers"),
        ([lambda completion, lock=LOCK: 1], None, "can't be carried to the verifiers' process"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_judged(functions, weights, sentence):
    with pytest.raises(UserError, match="reward") as raised:
        judged(functions, ["x"], weights)
    assert sentence in str(raised.value)


def test_a_function_that_nobody_passed_is_one_sentence():
    with VerifierReward() as verifiers, pytest.raises(UserError, match="the Python function by_name, which only a call from Python has"):
        verifiers.prepare([Task("q", None, "python:by_name")])
