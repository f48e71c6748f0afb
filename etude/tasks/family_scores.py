"""The `reasoning_gym` verifier: a stricter form of a family's own scorer.

Many families accept more than one right answer, so their own scorer is needed. But these scorers are designed for reward shaping: most give
a partial score to any text that contains the gold answer, so "10" earns half for "1". Here only a full score counts. Further differences:

- `number_sorting` accepts every number within 1 of the right one, and `puzzle24` any four numbers and every value from 24 up to 25: the
  numbers must be the question's, and the value 24.
- Four families evaluate the answer as Python and five as sympy code, which is Python as well. They only get words and literal lists, or
  arithmetic over known function names; anything else is wrong.
- Five families evaluate a text of the entry, which may come from an untrusted data file: the same rule applies, or nothing is scored.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from etude.errors import UserError
from etude.tasks.answers import answer_form, final_answer, has_form_of, parse_list
from etude.tasks.feedback import of_another_form, quoted, read_as
from etude.tasks.reward import Reward
from etude.tasks.task import Task

_EVALUATED = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
_SYMPY = frozenset({"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"})
_FUNCTIONS = frozenset(
    ["sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "pi", "erf", "Abs", "Integral"]
)
_WORDS = re.compile(r"[\w\s]*+")
_ARITHMETIC = re.compile(r"(?:[^\W_]|[\s+*/^(),-]|\.(?![^\W\d]))*+")
_NAME = re.compile(r"[^\W\d]\w*")
_INTEGER = re.compile(r"\d{1,18}")
_BITWISE = re.compile(r"(?:0x[\da-fA-F]+|[\d\s()+*/%&|^~<>-])*+")


def reasoning_gym(text: str, task: Task) -> Reward:
    """Score 1.0 if the scorer of `metadata["family"]` gives the answer exactly 1.0 for `metadata["entry"]`, else 0.0.

    The scorer's own value is kept in `parts["source_score"]`. An answer of another form than the gold answer scores 0.0 without calling the
    scorer. Exceptions of the scorer on an answer of the right form are raised to the caller, who counts the answer as unscored.
    """
    answer = final_answer(text, task.answer)
    if not answer or (task.answer is not None and not has_form_of(answer, task.answer)):
        expected = "an answer" if task.answer is None else f"a {answer_form(task.answer)}"
        message = f"expected {expected}, got {answer_form(answer)}"
        return Reward(0.0, {"parsable": 0.0}, message=message, words=of_another_form(answer))
    family = task.metadata["family"]
    if not _is_harmless(family, answer):
        return Reward(0.0, {"parsable": 0.0}, message="the answer is not plain arithmetic or data", words=of_another_form(answer))
    entry = decode(task.metadata["entry"])
    if not _has_harmless_entry(family, entry):
        return Reward(None, message=f"the entry of family {family!r} is not plain arithmetic or data")
    source_score = float(load_scorer(family)(answer=answer, entry=entry))
    if source_score == 1.0:
        problem = _too_loose(family, answer, entry)
    else:
        expected = "what the question asks for" if task.answer is None else repr(task.answer[:60])
        problem = f"got {answer[:60]!r}, expected {expected}"
    parts = {"parsable": 1.0, "source_score": source_score}
    return Reward(float(not problem), parts, message=problem, words=read_as(quoted(answer)) if problem else "")


def encode(value: Any) -> Any:
    """Encode an entry as JSON values that `decode` restores exactly: tuples, and dictionaries with keys other than text, are marked.

    >>> encode({"size": (1, 2)})
    {'size': {'__tuple__': [1, 2]}}
    """
    if isinstance(value, tuple):
        return {"__tuple__": [encode(item) for item in value]}
    if isinstance(value, list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {str(key): encode(item) for key, item in value.items()}
        return {"__items__": [[encode(key), encode(item)] for key, item in value.items()]}
    return value


def decode(value: Any) -> Any:
    """Decode an entry that `encode` encoded."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {"__tuple__"}:
        return tuple(decode(item) for item in value["__tuple__"])
    if value.keys() == {"__items__"}:
        return {decode(key): decode(item) for key, item in value["__items__"]}
    return {key: decode(item) for key, item in value.items()}


@cache
def load_scorer(family: str) -> Callable[..., float]:
    """Return the scorer of a family, with the modules and data that it loads."""
    return library().get_score_answer_fn(family)


def library() -> ModuleType:
    """Return the package reasoning_gym. Raises UserError if it is not installed."""
    try:
        import reasoning_gym.factory
    except ModuleNotFoundError as error:
        raise UserError(f"families of problems need the package {error.name}: pip install 'etude[gym]'") from None
    return reasoning_gym


def _is_harmless(family: str, answer: str) -> bool:
    """Tell whether an answer may be passed to a scorer that evaluates it."""
    if family in _EVALUATED:
        return _WORDS.fullmatch(answer) is not None or parse_list(answer) is not None
    if family not in _SYMPY:
        return True
    return _ARITHMETIC.fullmatch(answer) is not None and all(len(name) == 1 or name in _FUNCTIONS for name in _NAME.findall(answer))


def _has_harmless_entry(family: str, entry: Mapping[str, Any]) -> bool:
    """Tell whether the text of an entry that the scorer evaluates is a list of numbers or arithmetic."""
    if family == "number_sorting":
        return parse_list(entry["answer"]) is not None
    if family == "bitwise_arithmetic":
        return _BITWISE.fullmatch(entry["metadata"]["problem"]) is not None
    if family == "polynomial_multiplication":
        return _is_harmless(family, entry["answer"])
    if family in ("simple_integration", "intermediate_integration"):
        return _is_harmless(family, entry["metadata"]["integrand"])
    return True


def _too_loose(family: str, answer: str, entry: Mapping[str, Any]) -> str:
    """Describe what is wrong with an answer that the family's scorer accepts; "" if nothing is.

    Answers of `puzzle24` must have passed `_is_harmless`.
    """
    if family == "number_sorting":
        found, given = [float(n) for n in parse_list(answer) or ()], [float(n) for n in entry["metadata"]["original_numbers"]]
    elif family == "puzzle24":
        from sympy.parsing.sympy_parser import parse_expr

        if parse_expr(answer) != 24:
            return "the value is not 24"
        found, given = [float(n) for n in _INTEGER.findall(answer)], [float(n) for n in entry["metadata"]["numbers"]]
    else:
        return ""
    return "" if sorted(found) == sorted(given) else "the numbers are not those of the question"
