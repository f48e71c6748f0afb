"""Loads a user's own Python function, a verifier or a generator of tasks, named `file.py:function` or `package.module:function`.

A generator of tasks (`tasks.function`) runs in the main process without limits: it is part of the program that its user starts. A verifier
runs only in the verifiers' process (`etude.rewards.verifier_reward`); the main process only looks for its name in the file
(`etude.tasks.function_check`). A verifier is called with (text, task) and returns a reward: any finite number, None if it cannot decide, or
a `Reward`. An answer is right from a score of 1, unless the function has an attribute `right_at`:

    def judge(text, task):
        return 30 * share_of_tests_passed(text) - 5

    judge.right_at = 25
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.errors import UserError, unknown
from etude.randomness import seed_for
from etude.tasks.function_check import import_failure, require_file, split_name
from etude.tasks.reward import RIGHT_AT, Reward
from etude.tasks.task import Task


def load_function(name: str, what: str = "function") -> Callable[..., Any]:
    """Load the function, or the class (`what`), named `file.py:function` or `package.module:function`; this runs the file.

    A relative file is looked up in the current folder. Raises UserError if the file or module is missing or fails to run, if it has no such
    name, and if the name is not a function.
    """
    place, function_name = split_name(name, what)
    module = _run_file(Path(place), what) if place.endswith(".py") else _import_module(place)
    found = getattr(module, function_name, None)
    if found is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        own = [key for key in public if what != "class" or getattr(vars(module)[key], "__module__", None) == module.__name__]
        raise unknown(f"{what} in {place}", function_name, own)
    if not callable(found):
        raise UserError(f"{name} must be a {what}, got {type(found).__name__}")
    return found


def to_reward(result: Any, right_at: float = RIGHT_AT) -> Reward:
    """Convert what a user's verifier returned to a Reward: a finite number or a bool is the score, None is unscored.

    `right_at` is the score from which an answer is right; a Reward has its own. NaN and infinities are unscored too, with a message. Raises
    TypeError for anything else, and for a Reward whose parts or step_values are not finite numbers or whose message or words are not text.

    >>> to_reward(True).score, to_reward(-2.5).score, to_reward(float("nan")).message
    (1.0, -2.5, 'the verifier returned nan, which is no score')
    """
    if isinstance(result, Reward):
        return _checked(result)
    if result is None:
        return Reward(None, message="the verifier returned None")
    if isinstance(result, str) or not hasattr(result, "__float__"):
        raise TypeError(f"a verifier returns a Reward, a number, a bool or None, got {type(result).__name__}")
    score = float(result)
    if not math.isfinite(score):
        return Reward(None, message=f"the verifier returned {score}, which is no score")
    return Reward(score, right_at=right_at)


def get_right_at(function: Callable[..., Any], name: str) -> float:
    """Return the score from which a user's verifier, called `name`, counts an answer as right: its attribute `right_at`, or 1.

    Raises UserError if the attribute is not a finite number.
    """
    right_at = getattr(function, "right_at", RIGHT_AT)
    if isinstance(right_at, str) or not hasattr(right_at, "__float__") or not math.isfinite(right_at):
        raise UserError(f"{name}.right_at must be a finite number, the score from which on an answer is right, got {right_at!r}")
    return float(right_at)


def load_verifier(name: str) -> Callable[[str, Task], Reward]:
    """Load a user's verifier by its name and wrap it to return rewards.

    Raises UserError like `load_function` and `get_right_at`.
    """
    function = load_function(name)
    right_at = get_right_at(function, name)

    @wraps(function)
    def verifier(text: str, task: Task) -> Reward:
        return to_reward(function(text, task), right_at)

    return verifier


def _checked(reward: Reward) -> Reward:
    """Convert a reward's numbers to plain Python floats for JSON. Raises TypeError for anything else."""
    for name in ("message", "words"):
        text = getattr(reward, name)
        if not isinstance(text, str):
            raise TypeError(f"a Reward's {name} must be text, got {type(text).__name__}")
    if not isinstance(reward.parts, Mapping):
        raise TypeError(f"a Reward's parts must be numbers by their names, got {type(reward.parts).__name__}")
    score = None if reward.score is None else _number("score", reward.score)
    parts = {name: _number("parts", value) for name, value in reward.parts.items()}
    step_values = tuple(_number("step_values", value) for value in reward.step_values)
    return Reward(score, parts, step_values, reward.message, reward.words, right_at=_number("right_at", reward.right_at))


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) or not hasattr(value, "__float__") or not math.isfinite(value):
        raise TypeError(f"a Reward's {name} must be finite numbers, got {value!r}")
    return float(value)


def generated_rows(name: str, *, split: str, n: int | None, seed: int) -> Iterator[tuple[str, Task | Mapping[str, Any]]]:
    """Yield at most n rows of a user's generator, each with its origin: tasks, or dictionaries with the columns of a file.

    The generator is called with `split`, `n` and `seed`. Raises UserError if it raises or yields something else.
    """
    function = load_function(name)
    try:
        for index, row in enumerate(function(split=split, n=n, seed=seed)):
            if n is not None and index >= n:
                return
            if not isinstance(row, (Task, Mapping)):
                raise UserError(f"{name} must yield Task or dict, got {type(row).__name__}")
            yield f"{name}[{index}]", row
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name}(split={split!r}, n={n}, seed={seed}) raised {type(error).__name__}: {error}") from error


def _run_file(path: Path, what: str = "function") -> ModuleType:
    require_file(path, what)
    module_name = f"etude_user_{seed_for(path.resolve()):x}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickles of the user look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UserError(f"{path} does not run: {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises
        raise import_failure(name, f"{type(error).__name__}: {error}") from error
