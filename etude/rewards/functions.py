"""Reward functions given as Python objects: `practice(..., reward=my_function)`.

    def short(completion):                               one answer, by position
        return 1 - len(completion) / 100

    def correct(completion, answer):                     and columns of its task, by their names
        return float(answer in completion)

    def unique(prompts, completions, **columns):         as TRL's `reward_funcs`: the attempts at one task at once, one number each
        return [1 / completions.count(text) for text in completions]

    def judge(text, task):                               as a verifier in a file: (text, Task) -> a number, None or a `Reward`
        return float(text == task.answer)

Any of them may be `async`. Columns are `prompt`, `question`, `answer`, `task` and those of the task's metadata. TRL calls a function once
for a batch with attempts at several tasks; here it is called once for each group, so that it can compare the attempts at a task. TRL's
`completion_ids`, `trainer_state` and the like are not there.

Several functions are added up with their weights, without those that return None or NaN, as in TRL; each is also logged as a part.

A function runs in the verifiers' process (`etude.rewards.verifier_reward`), to which cloudpickle carries it with what it refers to: it may
be a lambda, or stand in a notebook. It may hang or crash there, and it does not see changes that the main program makes later. `in_process`
marks a function that needs the main program, such as a model on a GPU; nothing protects the run from that one.
"""

import asyncio
import hashlib
import inspect
import math
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from etude.errors import UserError
from etude.tasks.function_check import PYTHON_OBJECT
from etude.tasks.functions import get_right_at, to_reward
from etude.tasks.reward import RIGHT_AT, Reward
from etude.tasks.task import Task

_STAYS = "etude_in_process"
_NOT_THERE = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Arguments of TRL's functions that nothing here can fill."""
Function = TypeVar("Function", bound=Callable[..., Any])


def in_process(function: Function) -> Function:
    """Mark a reward function that must run in the main program, without limits on its time and memory."""
    setattr(function, _STAYS, True)
    return function


@dataclass(frozen=True)
class RewardFunction:
    """One or several functions that score the attempts at a task."""

    functions: tuple[Callable[..., Any], ...]
    weights: tuple[float, ...]

    @staticmethod
    def of(functions: Sequence[Callable[..., Any]], weights: Sequence[float] | None = None) -> "RewardFunction":
        """Check the functions and their weights (default: 1 each). Raises UserError."""
        for function in functions:
            if not callable(function):
                raise UserError(f"reward: expected a function, got {function!r}")
        weights = [1.0] * len(functions) if weights is None else list(weights)
        if len(weights) != len(functions):
            raise UserError(f"reward_weights has {len(weights)} numbers for {len(functions)} functions: give one for each")
        if not all(map(math.isfinite, weights)):
            raise UserError(f"reward_weights must be finite numbers, got {weights}")
        return RewardFunction(tuple(functions), tuple(map(float, weights)))

    @property
    def name(self) -> str:
        """The verifier of the tasks that it scores."""
        return PYTHON_OBJECT + "+".join(self.names)

    @cached_property
    def names(self) -> list[str]:
        """The functions' names, made different by numbers."""
        found: list[str] = []
        for function in self.functions:
            name = getattr(function, "__name__", type(function).__name__).strip("<>")
            found.append(next(each for each in (name, *(f"{name}_{number}" for number in range(2, 999))) if each not in found))
        return found

    @property
    def stays(self) -> bool:
        """Whether it runs in the main program: one of its functions is marked by `in_process`."""
        return any(getattr(function, _STAYS, False) for function in self.functions)

    @property
    def fingerprint(self) -> str:
        """A hash of the functions' sources and weights; what they refer to is not in it."""
        return hashlib.sha256(repr([[_source(each) for each in self.functions], self.weights]).encode()).hexdigest()

    def check(self, task: Task) -> None:
        """Raise UserError if a function asks for what a task does not have."""
        for name, function in zip(self.names, self.functions, strict=True):
            known, asked = _columns(task), _asked(function)
            positional = [] if _is_batched(asked) else list(asked)[:1]
            given = {*known, *positional, *(("prompts", "completions") if not positional else ())}
            for each in asked.values():
                if each.name in given or each.default is not each.empty or each.kind in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
                    continue
                why = "which etude does not have" if each.name in _NOT_THERE else f"which is no column: there are {', '.join(known)}"
                raise UserError(f"reward: {name} asks for {each.name!r}, {why}; leave it out, or give it a default")

    def pickled(self) -> bytes:
        """Return the functions as bytes that the verifiers' process can load. Raises UserError if they can't be carried there."""
        import cloudpickle  # type: ignore[import-untyped]

        try:
            with _by_value(cloudpickle, self.functions):
                return bytes(cloudpickle.dumps(self))
        except Exception as error:  # whatever an object raises that can't be pickled
            raise UserError(
                f"reward: {', '.join(self.names)} can't be carried to the verifiers' process ({type(error).__name__}: {error}): mark it "
                "with etude.in_process, which runs it here without limits, or write it in a file and pass 'FILE.py:FUNCTION'"
            ) from error

    def rewards(self, texts: Sequence[str], task: Task) -> list[Reward]:
        """Return the rewards of the attempts at a task. Raises whatever a function raises, and TypeError for what is no reward."""
        each = [_scores(function, texts, task) for function in self.functions]
        if len(each) == 1 and self.weights == (1.0,):
            right_at = get_right_at(self.functions[0], self.names[0])
            return [to_reward(found, right_at) for found in each[0]]
        return [self._sum([to_reward(found) for found in row]) for row in zip(*each, strict=True)]

    def _sum(self, rewards: Sequence[Reward]) -> Reward:
        """Add up the rewards of one attempt that have a score."""
        rows = zip(self.names, self.weights, rewards, strict=True)
        scored = [(name, weight, each) for name, weight, each in rows if each.score is not None]
        if not scored:
            return Reward(None, message=next((each.message for each in rewards if each.message), "no function returned a score"))
        parts = {name: value for _, _, each in scored for name, value in each.parts.items()}
        parts |= {name: float(each.score or 0.0) for name, _, each in scored}
        right_at = next((get_right_at(each, "reward") for each in self.functions if hasattr(each, "right_at")), RIGHT_AT)
        words = " ".join(each.words for _, _, each in scored if each.words)
        return Reward(sum(weight * (each.score or 0.0) for _, weight, each in scored), parts, words=words, right_at=right_at)


def _scores(function: Callable[..., Any], texts: Sequence[str], task: Task) -> list[Any]:
    """Call a function in the way that its parameters ask for."""
    asked, columns = _asked(function), _columns(task)
    takes_all = any(each.kind is each.VAR_KEYWORD for each in asked.values())
    if _is_batched(asked):
        is_chat = not isinstance(task.prompt, str)
        completions: list[Any] = [[{"role": "assistant", "content": text}] for text in texts] if is_chat else list(texts)
        given = {name: [value] * len(texts) for name, value in columns.items() if takes_all or name in asked}
        given |= {"completions": completions} | ({"prompts": [columns["prompt"]] * len(texts)} if takes_all or "prompts" in asked else {})
        found = _waited(function(**given))
        if isinstance(found, str) or not hasattr(found, "__len__") or len(found) != len(texts):
            raise TypeError(f"it must return a list with a number for each of the {len(texts)} completions, got {_short(found)}")
        return list(found)
    first, *others = asked.values()
    more = {each.name: columns[each.name] for each in others if each.name in columns}
    if takes_all:
        more |= {name: value for name, value in columns.items() if name != first.name}
    if first.kind is not first.KEYWORD_ONLY:
        return [_waited(function(text, **more)) for text in texts]
    return [_waited(function(**{first.name: text}, **more)) for text in texts]


def _asked(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return a function's parameters by name. Raises UserError if it has none."""
    try:
        asked = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # built in
        asked = {}
    if not asked:
        name = getattr(function, "__name__", function)
        raise UserError(f"reward: {name} takes no completion: give it a parameter, such as `completions`")
    return asked


def _is_batched(asked: Mapping[str, inspect.Parameter]) -> bool:
    """Tell whether a function takes the completions of a group at once, as TRL's do."""
    return "completions" in asked or all(each.kind is each.VAR_KEYWORD for each in asked.values())


def _columns(task: Task) -> dict[str, Any]:
    prompt = task.prompt if isinstance(task.prompt, str) else [dict(message) for message in task.prompt]
    return {**task.metadata, "prompt": prompt, "question": task.question, "answer": task.answer, "task": task}


def _waited(found: Any) -> Any:
    """Return a result, or that of a coroutine."""
    if not inspect.iscoroutine(found):
        return found
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(found)
    with ThreadPoolExecutor(1) as thread:  # a notebook runs a loop of its own
        return thread.submit(asyncio.run, found).result()


def _short(found: Any) -> str:
    return f"{len(found)} values" if hasattr(found, "__len__") and not isinstance(found, str) else type(found).__name__


def _source(function: Callable[..., Any]) -> str:
    """Return a function's source, or else its bytecode as text."""
    target: Any = function if inspect.isroutine(function) else type(function)
    try:
        return inspect.getsource(target)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return repr((code.co_code, code.co_consts)) if code else repr(target)


@contextmanager
def _by_value(cloudpickle: Any, functions: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Pickle functions of the user's own modules by value: the verifiers' process has another path, and would not find them."""
    modules = [sys.modules.get(getattr(each, "__module__", None) or "") for each in functions]
    with ExitStack() as stack:
        for module in {id(each): each for each in modules if each is not None and _is_own(each)}.values():
            cloudpickle.register_pickle_by_value(module)
            stack.callback(cloudpickle.unregister_pickle_by_value, module)
        yield


def _is_own(module: Any) -> bool:
    """Tell whether a module is a file of the user's own, and no installed one."""
    file = getattr(module, "__file__", None)
    if module.__name__ in ("__main__", "builtins") or not file or module.__name__.partition(".")[0] == "etude":
        return False
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
    return not any(Path(file).resolve().is_relative_to(place) for place in installed)
