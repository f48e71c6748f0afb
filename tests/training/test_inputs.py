"""A run goes on with the tasks, demonstrations, evaluation and verifiers that it began with, or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.recipes.practice import Loop
from etude.tasks.comparisons import Comparison
from etude.tasks.task import Task
from etude.training.data import RunData
from etude.training.inputs import inputs_of, verifiers_of

VERIFIER = "def judge(text, task):\n    return text.startswith(task.answer)\n"
FILES = {
    "tasks.path": ["train.jsonl"],
    "tasks.verifier": "mine.py:judge",
    "evaluation.path": ["test.jsonl"],
    "warm_start.path": ["shown.jsonl"],
    "warm_start.steps": 2,
    "steps": 2,
    "save_steps": 1,
}


@pytest.fixture
def killed_run(small, letter_files, killed):
    """A run on files that was killed before its second step."""
    Path("mine.py").write_text(VERIFIER)
    with killed(Loop, "rollout", lambda loop, step: step == 2):
        small(letter_files / "run", FILES)
    return letter_files / "run"


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def write(name: str, rows: list[dict]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_is_not_resumed_with_changed_inputs_each_of_which_is_named(small, killed_run):
    refused = {
        "train.jsonl": ("the training tasks", lambda rows: rows[::-1]),
        "shown.jsonl": ("the demonstrations", lambda rows: [{**row, "worked": row["worked"] + "!"} for row in rows]),
        "test.jsonl": ("the evaluation test", lambda rows: [{**row, "answer": "z"} for row in rows]),
    }
    before = {path: path.read_bytes() for path in killed_run.rglob("*") if path.is_file() and path.name != "lock"}
    for name, (called, changed) in refused.items():
        rows = rows_of(name)
        write(name, changed(rows))
        with pytest.raises(
            UserError, match=rf"--resume: {called} changed since the run in .*run began: resume with what it began with, or"
        ):
            small(killed_run, FILES, resume=True)
        write(name, rows)
    Path("mine.py").write_text(VERIFIER.replace("return", "return not"))
    with pytest.raises(UserError, match=r"--resume: the verifier mine\.py:judge changed since"):
        small(killed_run, FILES, resume=True)
    Path("mine.py").write_text(VERIFIER)
    assert {path: path.read_bytes() for path in before} == before
    write("again.jsonl", rows_of("train.jsonl"))  # the same tasks in another place are the same tasks
    shutil.move("again.jsonl", "train.jsonl")
    assert small(killed_run, FILES, resume=True)["status"] == "finished"


TASK = Task("What is 2 + 2?", "4", metadata={"n": 1}, origin="train.jsonl:1")
DATA = RunData([TASK], [], [], {"test": [Task("What is 3 + 3?", "6")]}, {})


@pytest.mark.parametrize(
    "change", [{"answer": "5"}, {"prompt": "What is 2 + 3?"}, {"worked": "2 and 2"}, {"metadata": {"n": 2}}, {"instruction": "Say it."}]
)
def test_every_part_of_a_task_changes_its_fingerprint_except_its_origin(change):
    assert inputs_of(DATA) == inputs_of(replace(DATA, train=[replace(TASK, origin="moved/train.jsonl:1")]))
    other = inputs_of(replace(DATA, train=[replace(TASK, **change)]))
    assert [name for name, value in inputs_of(DATA).items() if other[name] != value] == ["the training tasks"]


def test_compared_answers_count():
    with_some = inputs_of(replace(DATA, comparisons=[Comparison(TASK, "4", "5")]))
    other = inputs_of(replace(DATA, comparisons=[Comparison(TASK, "4", "6")]))
    assert [name for name in with_some if other[name] != with_some[name]] == ["the compared answers"]


def test_replayed_text_counts(small, letter_files, killed):
    overrides = FILES | {"replay.path": ["old.txt"], "replay.ratio": 0.5, "tasks.verifier": "exact"}
    Path("old.txt").write_text("Two wrens met at the mill and sang of the rain. " * 9)
    with killed(Loop, "rollout", lambda loop, step: step == 2):
        small(letter_files / "run", overrides)
    Path("old.txt").write_text("Two wrens met at the mill and sang of the snow. " * 9)
    with pytest.raises(UserError, match=r"--resume: the replayed text changed since the run in .*run began"):
        small(letter_files / "run", overrides, resume=True)


def test_a_verifier_in_a_module_counts_by_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "verifiers_of_mine.py").write_text(VERIFIER)
    tasks = [replace(TASK, verifier="verifiers_of_mine:judge"), TASK]
    before = verifiers_of(tasks)
    (tmp_path / "verifiers_of_mine.py").write_text(VERIFIER + "\n")
    assert list(before) == ["the verifier verifiers_of_mine:judge"] and verifiers_of(tasks) != before
