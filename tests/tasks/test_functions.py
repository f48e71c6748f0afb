import json

import numpy as np
import pytest

from etude.errors import UserError
from etude.tasks.functions import load_function, to_reward
from etude.tasks.reward import Reward
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import find_verifier

GENERATOR = """
from etude.tasks.task import Task
def rows(split, n, seed):
    for i in range(1000):
        yield {"question": f"{split} {seed} {i}", "answer": i}
def tasks(split, n, seed):
    return [Task("a", "b", origin="mine")]
def wrong(split, n, seed):
    return [1]
def broken(split, n, seed):
    raise KeyError("oh")
def nothing(split, n, seed):
    return []
def surrogate(split, n, seed):
    return [Task("a", "\\ud800", "exact")]
constant = 3
"""


@pytest.fixture
def user_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(GENERATOR)
    (tmp_path / "bad.py").write_text("def f(:")
    return path


def test_a_function_is_loaded_from_a_file_or_a_module(user_file):
    assert len(list(load_function(f"{user_file}:tasks")("train", 1, 0))) == 1
    assert load_function("json:loads")("[1]") == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}/mine.py:row", "unknown function in .*mine.py 'row': did you mean 'rows'"),
        ("{folder}/bad.py:f", r"bad\.py does not run: SyntaxError"),
        ("{folder}/mine.py:constant", "mine.py:constant must be a function, got int"),
        ("{folder}/mnie.py:rows", r"mnie.py' is missing: did you mean 'mine.py'"),
        ("{folder}/nowhere/other.py:rows", "is missing: no such file"),
        ("mine.py", "a function is named file.py:function"),
        ("no_such_module:rows", "module 'no_such_module' cannot be imported"),
    ],
)
def test_a_missing_function_is_reported(user_file, name, message):
    with pytest.raises(UserError, match=message):
        load_function(name.format(folder=user_file.parent))


def test_a_generator_gives_dictionaries_or_tasks(user_file):
    tasks = load_tasks(TaskSource(function=f"{user_file}:rows"), split="test", n=5, seed=7)
    assert [task.prompt for task in tasks] == [f"test 7 {i}" for i in range(5)]
    assert tasks[0].verifier == "numeric" and tasks[0].origin.endswith("mine.py:rows[0]")
    assert load_tasks(TaskSource(function=f"{user_file}:tasks"), split="test", n=None, seed=7)[0].origin == "mine"


def test_a_generator_with_too_few_tasks_is_reported_by_name(user_file):
    message = r"mine\.py:tasks gave 1 tasks for split 'test', n = 1000 were asked for: ask for at most 1$"
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(function=f"{user_file}:tasks"), split="test", n=1000, seed=0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", "must yield Task or dict, got int"),
        ("broken", "raised KeyError: 'oh'"),
        ("nothing", "gave no tasks for split 'test'"),
        ("surrogate", r"surrogate\[0\]: the answer is not valid Unicode"),
    ],
)
def test_a_failing_generator_is_reported(user_file, function, message):
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(function=f"{user_file}:{function}"), split="test", n=None, seed=0)


def test_a_verifier_may_return_a_reward_a_number_a_bool_or_none():
    assert to_reward(Reward(0.5)).score == 0.5
    assert [to_reward(result).score for result in (0.25, 1, True, False, None)] == [0.25, 1.0, 1.0, 0.0, None]
    with pytest.raises(TypeError, match="got str"):
        to_reward("1.0")


@pytest.mark.parametrize(
    ("result", "score"),
    [(2.15, 2.15), (-5, -5.0), (30, 30.0), (np.float32(0.5), 0.5), (np.int64(-7), -7.0), (np.bool_(True), 1.0), (1e300, 1e300)],
)
def test_a_reward_is_any_finite_number_of_any_kind(result, score):
    for reward in (to_reward(result), to_reward(Reward(result, {"part": result}, (result,)))):
        assert reward.score == score and type(reward.score) is float and json.loads(json.dumps(reward.to_json()))["score"] == score


@pytest.mark.parametrize(("result", "said"), [(float("nan"), "nan"), (float("inf"), "inf"), (-np.inf, "-inf"), (np.float32("nan"), "nan")])
def test_nan_and_infinity_are_unscored_with_a_message(result, said):
    reward = to_reward(result)
    assert reward.score is None and reward.message == f"the verifier returned {said}, which is no score"
    with pytest.raises(ValueError, match="score must be a finite number or None"):
        Reward(result)


def test_a_verifier_says_from_where_on_an_answer_is_right(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def judge(text, task):\n    return len(text)\n\njudge.right_at = 3\n\ndef plain(text, task):\n    return len(text)\n"
        "def wrong(text, task):\n    return 1\n\nwrong.right_at = 'high'\n"
    )
    judge, plain = (find_verifier(f"{tmp_path / 'mine.py'}:{name}") for name in ("judge", "plain"))
    task = Task("q")
    assert [judge(text, task).is_right for text in ("ab", "abc", "abcd")] == [False, True, True]
    assert [plain(text, task).is_right for text in ("", "a", "ab")] == [False, True, True]
    with pytest.raises(UserError, match=r"wrong\.right_at must be a finite number, the score from which on an answer is right, got 'high'"):
        find_verifier(f"{tmp_path / 'mine.py'}:wrong")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parts": {"length": "long"}}, "parts must be finite numbers, got 'long'"),
        ({"parts": {"length": None}}, "parts must be finite numbers, got None"),
        ({"parts": {"length": float("nan")}}, "parts must be finite numbers, got nan"),
        ({"parts": [("length", 1.0)]}, "parts must be numbers by their names, got list"),
        ({"step_values": (0.5, float("inf"))}, "step_values must be finite numbers, got inf"),
        ({"step_values": "ab"}, "step_values must be finite numbers, got 'a'"),
        ({"message": 5}, "message must be text, got int"),
        ({"words": None}, "words must be text, got NoneType"),
    ],
)
def test_rewards_that_json_cannot_hold_are_refused(fields, said):
    with pytest.raises(TypeError, match=said):
        to_reward(Reward(0.5, **fields))
    assert to_reward(Reward(0.5, {"length": 3}, (0.5, 1), "near", "colder")).parts == {"length": 3}
