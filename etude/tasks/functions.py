"""A user's own Python: a verifier or a generator of tasks, named `file.py:function` or `package.module:function`.

A generator of tasks (`tasks.function`) is run in the main process, with all that it may do: it is part of the program that its user starts.
A verifier is run in the verifiers' process alone (`etude.feedback.outcome`); the main process looks for its name (`etude.tasks.names`).
"""

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from etude.errors import UserError, unknown
from etude.feedback.verdict import Verdict
from etude.randomness import seed_for
from etude.tasks.names import existing, not_imported, place_of
from etude.tasks.task import Task


def load_function(name: str) -> Callable[..., Any]:
    """The function that `file.py:function` or `package.module:function` names; the file is run.

    A relative file is looked up in the current folder. Raises UserError where the file or module is missing or does not run, where it has
    no such name, and where the name is not a function.
    """
    place, function_name = place_of(name)
    module = _run_file(Path(place)) if place.endswith(".py") else _import_module(place)
    found = getattr(module, function_name, None)
    if found is None:
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown(f"function in {place}", function_name, public)
    if not callable(found):
        raise UserError(f"{name} must be a function, got {type(found).__name__}")
    return found


def as_verdict(result: Any) -> Verdict:
    """What a user's verifier returned, as a verdict: a Verdict as it is, a number in [0, 1] or a bool as the score, None as unscored.

    Raises TypeError for anything else, a Verdict whose parts or step_values are no finite numbers or whose message or words are no text
    among it, and ValueError for a score outside [0, 1].

    >>> as_verdict(True).score
    1.0
    """
    if isinstance(result, Verdict):
        _check(result)
        return result
    if result is None:
        return Verdict(None, message="the verifier returned None")
    if isinstance(result, str) or not hasattr(result, "__float__"):
        raise TypeError(f"a verifier returns a Verdict, a number in [0, 1], a bool or None, got {type(result).__name__}")
    return Verdict(float(result))


def _check(verdict: Verdict) -> None:
    for name in ("message", "words"):
        text = getattr(verdict, name)
        if not isinstance(text, str):
            raise TypeError(f"a Verdict's {name} must be text, got {type(text).__name__}")
    if not isinstance(verdict.parts, Mapping):
        raise TypeError(f"a Verdict's parts must be numbers by their names, got {type(verdict.parts).__name__}")
    for name, numbers in (("parts", verdict.parts.values()), ("step_values", verdict.step_values)):
        for number in numbers:
            if not isinstance(number, (int, float)) or not math.isfinite(number):
                raise TypeError(f"a Verdict's {name} must be finite numbers, got {number!r}")


def generated_rows(name: str, *, split: str, n: int | None, seed: int) -> Iterator[tuple[str, Task | Mapping[str, Any]]]:
    """What a user's generator yields when called with `split`, `n` and `seed`: tasks, or dictionaries with a file's columns; at most n.

    Each comes with where it is from, for messages. Raises UserError where the generator raises or yields something else.
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


def _run_file(path: Path) -> ModuleType:
    existing(path)
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
        raise not_imported(name, f"{type(error).__name__}: {error}") from error
