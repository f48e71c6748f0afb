"""Loads the tasks of a source: a family of generated problems, files, a data set of the hub, or a function.

    load_tasks(TaskSource(family="chain_sum"), split="train", n=100, seed=0)
    load_tasks(TaskSource(path=["gsm8k/{split}.jsonl"]), split="test", n=None, seed=0, data=Path("sets"))

A family is generated, each split from its own seeds. Files and data sets are used unchanged: `etude.tasks.overlap` tells whether training
and evaluation share items.
"""

from bisect import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from math import isfinite
from pathlib import Path
from typing import Any

from etude.errors import UserError, at_least, unknown
from etude.randomness import seed_for
from etude.tasks.actions import Actions, add_instruction
from etude.tasks.aliases import with_aliases
from etude.tasks.answers import answer_form
from etude.tasks.checks import check_gold_answers, check_is_built_in, check_right_at, check_texts
from etude.tasks.columns import task_from_row
from etude.tasks.families import check_parameters, load_family
from etude.tasks.files import file_rows, find_file
from etude.tasks.functions import generated_rows
from etude.tasks.hub import hub_rows
from etude.tasks.task import Task
from etude.tasks.verifiers import check_verifier

SOURCES = ("path", "family", "dataset", "function")
"""The kinds of source: exactly one of these settings of a `TaskSource` is set."""

Row = tuple[str, Task | Mapping[str, Any]]
"""The origin of a row, and the row."""


SPLIT_SHARES = {"train": 0.6, "dev": 0.1, "test": 0.3}
"""The default splits that `split_by` makes, with their shares."""


@dataclass(frozen=True)
class TaskSource:
    """Settings of a source of tasks: exactly one of `path`, `family`, `dataset` and `function`."""

    path: list[str] = field(default_factory=list)
    """JSONL, JSON, CSV, TSV or Parquet files, in the current or the data folder; `{split}` in a path is replaced by the split."""
    family: str | None = None
    """A family of generated problems of reasoning-gym, such as chain_sum."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Fields of the family's configuration, such as {min_terms: 2, max_terms: 3}."""
    question: str | None = None
    """A format string over the columns, or the family's metadata, that replaces the question: "Sort: {original_numbers}"."""
    dataset: str | None = None
    """A data set on the Hugging Face hub."""
    dataset_name: str | None = None
    """Configuration of the data set, if it has several."""
    dataset_split: str | None = None
    """Split to practise on; null = train. `evaluation.split` names the one to measure on."""
    function: str | None = None
    """Your own task generator, `file.py:function`, called with split, n and seed; it yields Task or dictionaries with a file's columns. Its
    file runs in the main process without limits; a verifier's file never does."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our names (question, answer, worked, choices, messages, verifier) to the source's columns."""
    where: dict[str, str] = field(default_factory=dict)
    """Keep only rows of files and data sets whose columns have these values, such as {type: mcq}."""
    split_by: str | None = None
    """Column by which files and data sets without splits are split, such as section. All rows with one value are in the same split, chosen
    by a hash of the value."""
    split_shares: dict[str, float] = field(default_factory=lambda: dict(SPLIT_SHARES))
    """Splits that `split_by` makes, with the probability of each, which sum to 1."""
    verifier: str | None = None
    """Verifier of all tasks, instead of the rows' own; may be `file.py:function`, which a row of a file or data set may not name. null =
    the family's scorer; numeric if every answer is a number; choice with choices; else exact."""
    right_at: float | None = None
    """Score from which an answer is right, for verifiers with other scores than 0 and 1; null = 1. Above 0 and at most 1 for built-in
    verifiers, any number for your own (whose function may set it as an attribute `right_at`)."""
    worked_format: str | None = None
    """Format string of the demonstration, over the columns, `answer`, `worked` and, with choices, `choice` (the right one's text):
    "{worked}\\nThe answer is {answer}."."""
    max_worked_steps: int | None = None
    """Keep only items of files, data sets and functions with worked steps, at most this many, such as the easy ones of GSM8K; null = all
    items. A step is a line before the last, which gives the answer."""
    actions: Actions = field(default_factory=Actions)

    def __post_init__(self) -> None:
        named = [name for name in SOURCES if getattr(self, name)]
        if len(named) != 1:
            raise UserError(f"a task source needs exactly one of path, family, dataset and function, got {' and '.join(named) or 'none'}")
        for setting, owner in _BELONGS_TO.items():
            if getattr(self, setting) and owner != named[0]:
                raise UserError(f"{setting} belongs to {owner} and has no effect on {named[0]}: leave it out")
        if self.max_worked_steps is not None:
            at_least("max_worked_steps", self.max_worked_steps, 1)
            if self.family:
                raise UserError("max_worked_steps counts the lines of worked steps, which a family's items do not have: leave it out")
        for setting in ("columns", "where", "split_by"):
            if getattr(self, setting) and self.family:
                raise UserError(f"{setting} has no effect on family: leave it out")
        if self.right_at is not None and not isfinite(self.right_at):
            raise UserError(f"right_at must be a finite number, got {self.right_at}")
        shares = self.split_shares.values()
        if min(shares, default=0) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise UserError(f"split_shares must be above 0 and sum to 1, got {dict(self.split_shares)}")


_BELONGS_TO = {"parameters": "family", "dataset_name": "dataset", "dataset_split": "dataset"}


def load_tasks(source: TaskSource, *, split: str, n: int | None, seed: int, data: Path | None = None) -> list[Task]:
    """Load the tasks of a source, each with the instruction of its tagged actions.

    A family gives n distinct tasks, different for each split and seed. A file or data set gives all its rows, or n of them selected by
    `seed`, in file order. Gold answers of cheap verifiers are checked. `data` is the folder of data sets. Raises UserError, in one sentence
    that names the file and line, for any error.
    """
    if n is not None and n < 1:
        raise UserError(f"n must be at least 1, or left out for all tasks of a file, got {n}")
    tasks = _load_rows(source, split, n, seed, data)
    check_right_at(tasks, source.right_at)
    return add_instruction(tasks, source.actions.words)


def _load_rows(source: TaskSource, split: str, n: int | None, seed: int, data: Path | None) -> list[Task]:
    if source.family is not None:
        return _family_tasks(source, split, n, seed)
    tasks = [_task(row, origin, source) for origin, row in _filter_rows(_rows(source, split, n, seed, data), source, split)]
    if not tasks:
        wanted = f" with {', '.join(f'{name} {value}' for name, value in source.where.items())}" if source.where else ""
        raise UserError(f"{_source_name(source)} gave no tasks for split {_split_in_source(source, split)!r}{wanted}")
    if source.max_worked_steps is not None:
        tasks = [task for task in tasks if 0 < num_steps(task) <= source.max_worked_steps]
        if not tasks:
            raise UserError(
                f"{_source_name(source)} has no item with {source.max_worked_steps} worked steps at most: raise max_worked_steps"
            )
    tasks = _with_verifiers(tasks, source.verifier)
    check_gold_answers(tasks)
    if n is not None and n > len(tasks):
        raise UserError(
            f"{_source_name(source)} gave {len(tasks)} tasks for split {_split_in_source(source, split)!r}, n = {n} were asked for: "
            f"ask for at most {len(tasks)}"
        )
    return _pick(tasks, n, seed)


def num_steps(task: Task) -> int:
    """Count the worked steps of a task: the lines before the last, which gives the answer; 0 without worked steps.

    >>> num_steps(Task("What is 1 + 2 + 3?", "6", worked="1 + 2 = 3\\n3 + 3 = 6\\nThe answer is 6."))
    2
    """
    return max(0, sum(bool(line.strip()) for line in (task.worked or "").splitlines()) - 1)


def _family_tasks(source: TaskSource, split: str, n: int | None, seed: int) -> list[Task]:
    assert source.family is not None
    check_parameters(source.family, source.parameters)
    if n is None:
        raise UserError(f"family {source.family!r} has no end: say how many tasks with n")
    tasks = load_family(
        source.family, source.parameters, split=split, n=n, seed=seed, question=source.question, worked_format=source.worked_format
    )
    if source.verifier is None:
        return tasks
    tasks = _with_verifiers(tasks, source.verifier)
    check_gold_answers(tasks)
    return tasks


def _rows(source: TaskSource, split: str, n: int | None, seed: int, data: Path | None) -> Iterable[Row]:
    if source.function is not None:
        return generated_rows(source.function, split=split, n=n, seed=seed)
    if source.dataset is not None:
        return hub_rows(source.dataset, name=source.dataset_name, split=_split_in_source(source, "train" if source.split_by else split))
    files = [find_file(path.replace("{split}", split), data) for path in source.path]
    return (row for file in files for row in file_rows(file))


def _filter_rows(rows: Iterable[Row], source: TaskSource, split: str) -> Iterable[Row]:
    """Yield the rows that `where` and `split_by` select."""
    if source.split_by and split not in source.split_shares:
        raise unknown(f"split of {source.split_by}", split, source.split_shares)
    for origin, row in rows:
        if isinstance(row, Mapping):
            for column in (*source.where, *([source.split_by] if source.split_by else ())):
                if column not in row:
                    raise unknown(f"column in {origin}", column, map(str, row))
            if any(str(row[column]) != value for column, value in source.where.items()):
                continue
            if source.split_by and hash_split(str(row[source.split_by]), source.split_shares) != split:
                continue
        yield origin, row


def hash_split(value: str, shares: Mapping[str, float]) -> str:
    """Return the split of all rows with this value, by a hash of the value: each split is as likely as its share.

    >>> hash_split("m45981", {"train": 0.6, "dev": 0.1, "test": 0.3})
    'train'
    """
    ends = list(accumulate(shares.values()))
    return list(shares)[min(bisect(ends, seed_for("split", value) / 2**64), len(ends) - 1)]


def _split_in_source(source: TaskSource, split: str) -> str:
    """Return the source's own name of a split."""
    return source.dataset_split if split == "train" and source.dataset_split else split


def _source_name(source: TaskSource) -> str:
    """Return the source's name as the user gave it."""
    return source.function or source.dataset or ", ".join(source.path)


def _task(row: Task | Mapping[str, Any], origin: str, source: TaskSource) -> Task:
    if isinstance(row, Task):
        task = row if row.origin else replace(row, origin=origin)
    else:
        task = task_from_row(row, origin=origin, columns=source.columns, question=source.question, worked_format=source.worked_format)
    if source.verifier is None and source.function is None:
        check_is_built_in(task)
    check_texts(task)
    return task


def _with_verifiers(tasks: list[Task], verifier: str | None) -> list[Task]:
    """Return the tasks with the source's verifier, or else their own, or else the default for all answers."""
    unnamed = [task for task in tasks if not task.verifier]
    if verifier is None and unnamed:
        if all(task.answer is not None and answer_form(task.answer) == "number" for task in unnamed):
            default = "numeric"
        else:
            default = "choice" if all("choices" in task.metadata for task in unnamed) else "exact"
        tasks = [task if task.verifier else replace(task, verifier=default) for task in tasks]
    elif verifier is not None:
        tasks = [replace(task, verifier=verifier) for task in tasks]
    tasks = [with_aliases(task) if task.verifier == "aliases" else task for task in tasks]
    for name in {task.verifier for task in tasks}:
        check_verifier(name)
    return tasks


def _pick(tasks: list[Task], n: int | None, seed: int) -> list[Task]:
    """Select n tasks by seed, in their order; all of them if n is None."""
    if n is None or n == len(tasks):
        return tasks
    ranks = sorted(range(len(tasks)), key=lambda index: seed_for("pick", seed, index))
    return [tasks[index] for index in sorted(ranks[:n])]
