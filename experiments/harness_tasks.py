"""Tasks of lm-evaluation-harness that are read from files of this machine."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lm_eval.tasks import TaskManager


def write_task(folder: Path, name: str, rows: Sequence[Mapping[str, Any]], **settings: Any) -> Path:
    """Write a task with its rows and return its YAML file."""
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    read = {"data_files": {"test": str(data)}, "cache_dir": str(folder / "cache")}
    task = {"task": name, "dataset_path": "json", "dataset_kwargs": read, "test_split": "test", **settings}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf8")
    return folder / f"{name}.yaml"


def tasks_in(folder: Path) -> TaskManager:
    """Return the harness's tasks of a folder, without its own."""
    return TaskManager(include_path=str(folder), include_defaults=False)
