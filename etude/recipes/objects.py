"""Python objects of a call -> settings that name them, and the objects themselves (`etude.training.given`).

model       a name or path; or a loaded model and its tokenizer, (model, tokenizer)
tasks       texts, dictionaries (columns as in a file), `Task`s, a `datasets.Dataset`, a pandas table; or a path, a family
evaluation  the same, or a mapping of suites: {"easy": [...], "hard": [...]}
reward      a function or several (`etude.rewards.functions`), a verifier's name, 'FILE.py:FUNCTION', or a kind of reward
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.device.machine_settings import Machine
from etude.errors import UserError
from etude.evaluation.settings import Evaluation
from etude.randomness import seed_for
from etude.rewards.functions import RewardFunction
from etude.settings.arguments import type_with_article
from etude.tasks.columns import task_from_row
from etude.tasks.files import ENDINGS, file_rows, find_file
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS
from etude.training.given import MODEL, TASKS, Given, suite_file
from etude.training.settings import OTHER_REWARDS, REWARDS

Row = dict[str, Any]
Pair = tuple[Any, Any]
"""A loaded model and its tokenizer."""
HELD_OUT_SHARE, HELD_OUT_MOST = 0.2, 200
"""Share of the tasks that is held out for the evaluation if none is given, and at most how many."""
HELD_OUT = "held_out"


@dataclass
class Objects:
    """What a call gives beside settings."""

    run: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings by dotted name."""
    rows: dict[str, list[Row]] = field(default_factory=dict)
    model: Pair | None = None
    function: RewardFunction | None = None

    @property
    def given(self) -> Given:
        return Given(self.rows, self.model, self.function)

    def take(self, model: Any, tasks: Any, evaluation: Any, reward: Any, weights: Any, data: Path | None) -> None:
        """Take what a call of `practice` gives; None is not given."""
        if model is not None:
            self.take_model(model)
        if tasks is not None or evaluation is not None:
            self.take_tasks(tasks, evaluation, data)
        self._take_reward(reward, weights)

    def take_suites(self, tasks: Any, reward: Any, weights: Any) -> None:
        """Take what a call of `evaluate` gives beside the model; None is not given."""
        if tasks is not None:
            self._take_evaluation(tasks)
        self._take_reward(reward, weights)
        if reward is not None:
            if "reward" in self.settings:
                raise UserError(f"reward: {reward!r} scores attempts in practice; an evaluation takes a function or a verifier's name")
            self.settings["verifier"] = self.settings.pop("tasks.verifier")

    def take_model(self, model: Any) -> None:
        """Take a model by name, or a pair of model and tokenizer."""
        pair = model_and_tokenizer(model)
        if pair is None:
            self.settings["model"] = os.fspath(model)
        else:
            self.model, self.settings["model"] = pair, str(self.run / MODEL)

    def take_tasks(self, tasks: Any, evaluation: Any, data: Path | None) -> None:
        """Take training tasks and suites. Without `evaluation`, some of the tasks are held out, if they are rows or a file."""
        if isinstance(evaluation, Mapping) and set(evaluation) <= {each.name for each in dataclasses.fields(Evaluation)}:
            self.settings |= {f"evaluation.{name}": value for name, value in evaluation.items()}
            evaluation = None
        if isinstance(tasks, Mapping):
            self.settings |= {f"tasks.{name}": value for name, value in tasks.items()}
            tasks = None
        elif isinstance(tasks, str | os.PathLike):
            tasks = self._named(os.fspath(tasks), has_evaluation=evaluation is not None, data=data)
        if tasks is not None:
            rows = rows_of(tasks, "tasks")
            if evaluation is None and not self.settings.get("evaluation.path"):
                rows, held_out = hold_out(rows, self.settings.get("tasks.columns"))
                self._add_suite(HELD_OUT, held_out)
            self.rows[TASKS], self.settings["tasks.path"] = rows, [str(self.run / TASKS)]
        if evaluation is not None:
            self._take_evaluation(evaluation)

    def _named(self, name: str, *, has_evaluation: bool, data: Path | None) -> Any:
        """Take tasks by the name of a family, or the path of a file; return a file's rows if some of them are to be held out."""
        if not name.endswith(ENDINGS):
            self.settings["tasks.family"] = name
            return None
        if has_evaluation or "{split}" in name or self.settings.keys() & {"evaluation.path", "tasks.split_by"}:
            self.settings["tasks.path"] = [name]
            return None
        return [dict(row) for _, row in file_rows(find_file(name, data))]

    def _take_evaluation(self, evaluation: Any) -> None:
        if isinstance(evaluation, str | os.PathLike):
            self.settings["evaluation.path"] = [os.fspath(evaluation)]
        elif isinstance(evaluation, Mapping):
            for name, tasks in evaluation.items():
                if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
                    raise UserError(f"evaluation: {name!r} can't be the name of a suite: use letters, digits and _")
                self._add_suite(name, rows_of(tasks, f"evaluation[{name!r}]"))
        else:
            self._add_suite("evaluation", rows_of(evaluation, "evaluation"))

    def _add_suite(self, name: str, rows: list[Row]) -> None:
        self.rows[suite_file(name)] = rows
        self.settings.setdefault("evaluation.path", []).append(str(self.run / suite_file(name)))

    def _take_reward(self, reward: Any, weights: Sequence[float] | Mapping[str, float] | None) -> None:
        """Take a reward function, several, or the name of a verifier or of a kind of reward."""
        if reward is None:
            if weights is not None:
                raise UserError("reward_weights are those of several functions: pass them with reward=[...]")
            return
        if isinstance(reward, str):
            if weights is not None:
                raise UserError("reward_weights are those of several functions: leave them out, or pass a list as reward")
            is_kind = reward in (*REWARDS, *OTHER_REWARDS) and reward not in VERIFIERS
            self.settings["reward" if is_kind else "tasks.verifier"] = reward
            return
        functions: list[Callable[..., Any]] = list(reward) if isinstance(reward, list | tuple) else [reward]
        if not functions:
            raise UserError("reward is an empty list: pass a function, or leave it out for the tasks' own verifiers")
        for each in functions:
            if isinstance(each, str):
                raise UserError(f"reward: {each!r} stands among functions: pass it alone, or functions only")
        if isinstance(weights, Mapping):
            names = RewardFunction.of(functions).names
            if unknown := [name for name in weights if name not in names]:
                raise UserError(f"reward_weights: there is no function {unknown[0]!r}: they are {', '.join(names)}")
            weights = [weights.get(name, 1.0) for name in names]
        self.function = RewardFunction.of(functions, weights)
        self.settings["tasks.verifier"] = self.function.name


def named_model(model: Any) -> tuple[str, Pair | None]:
    """Return a model's name, and the loaded model with its tokenizer if it was given so. Raises UserError for anything else."""
    pair = model_and_tokenizer(model)
    if pair is None:
        return os.fspath(model), None
    pair[0].eval()  # dropout would change what it says
    return getattr(pair[0], "name_or_path", "") or type(pair[0]).__name__, pair


def machine_of(pair: Pair | None, machine: Machine) -> Machine:
    """Return the settings of the machine, on the device of a loaded model."""
    return machine if pair is None else dataclasses.replace(machine, device=str(pair[0].device))


def model_and_tokenizer(model: Any) -> Pair | None:
    """Return a pair of a loaded model and its tokenizer; None for a name or path. Raises UserError for anything else."""
    if isinstance(model, str | os.PathLike):
        return None
    if isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "generate") and hasattr(model[1], "encode"):
        return model
    if hasattr(model, "save_pretrained"):
        raise UserError(f"model: got {type_with_article(model)} alone: pass it with its tokenizer, model=(model, tokenizer)")
    raise UserError(
        f"model must be a bundled name, a folder, a .gguf file, a hub id, or (model, tokenizer), got {type_with_article(model)}"
    )


def rows_of(tasks: Any, name: str) -> list[Row]:
    """Return tasks as rows of a JSONL file. Raises UserError, with the place, for what is no task."""
    if hasattr(tasks, "to_dict") and hasattr(tasks, "columns"):  # a pandas table
        tasks = tasks.to_dict("records")
    if isinstance(tasks, Mapping) or (hasattr(tasks, "keys") and not hasattr(tasks, "column_names")):
        splits = ", ".join(map(str, tasks))
        raise UserError(f"{name}: got {type_with_article(tasks)} of {splits}: pass one of them, such as tasks[{splits.split(', ')[0]!r}]")
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise UserError(f"{name} must be a list of texts, dictionaries or Tasks, a data set or a path, got {type_with_article(tasks)}")
    found = [_row(each, f"{name}[{place}]") for place, each in enumerate(tasks)]
    if not found:
        raise UserError(f"{name} is empty: give at least one task")
    return found


def _row(task: Any, place: str) -> Row:
    if isinstance(task, Task):
        prompt = {"question": task.prompt} if isinstance(task.prompt, str) else {"messages": list(map(dict, task.prompt))}
        more = {"answer": task.answer, "worked": task.worked, "verifier": task.verifier, "metadata": dict(task.metadata)}
        row: Row = prompt | {name: value for name, value in more.items() if value}
    elif isinstance(task, str):
        row = {"question": task}
    elif isinstance(task, Mapping):
        row = dict(task)
    else:
        raise UserError(f"{place} must be a text, a dictionary or a Task, got {type_with_article(task)}")
    for column, value in row.items():
        try:
            row[column] = json.loads(json.dumps(value, default=_plain))
        except (TypeError, ValueError) as error:
            raise UserError(f"{place}: column {column!r} has a value that JSON can't hold: {error}") from error
    return row


def _plain(value: Any) -> Any:
    """Convert numbers and arrays of numpy."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__}")


def hold_out(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> tuple[list[Row], list[Row]]:
    """Split rows into training tasks and held-out ones, by a hash of their keys: equal prompts are on one side. Raises UserError for fewer
    than two different ones.
    """
    keys = [task_from_row(row, origin=f"tasks[{place}]", columns=columns or {}).key for place, row in enumerate(rows)]
    ranked = sorted(set(keys), key=lambda key: seed_for("held out", key))
    if len(ranked) < 2:
        raise UserError("tasks: one prompt alone can't be practised and measured: give more tasks, or others as evaluation=")
    chosen = set(ranked[: min(HELD_OUT_MOST, max(1, round(HELD_OUT_SHARE * len(ranked))))])
    sides: tuple[list[Row], list[Row]] = ([], [])
    for key, row in zip(keys, rows, strict=True):
        sides[key in chosen].append(row)
    return sides
