"""Tasks of the harness that are read from a file of this machine."""

import json
from pathlib import Path
from typing import Any

import yaml
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
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


def asked(kind: str, *arguments: Any) -> Instance:
    """Return a request of the harness."""
    return Instance(kind, {}, arguments, 0)
