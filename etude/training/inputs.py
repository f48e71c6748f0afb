"""Fingerprints of a run's inputs besides its settings: a resume must have the same ones.

A task's fingerprint covers prompt, answer, verifier and format, but not the file that it was read from: a folder may move. A verifier in a
file counts with that file, not with its imports.
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.fingerprints import fingerprint_of, sha256_of
from etude.tasks.task import Task
from etude.training.data import RunData


def inputs_of(data: RunData) -> dict[str, str]:
    """Return the fingerprints of a practice run's inputs by readable name."""
    tasks = {"the training tasks": data.train, "the demonstrations": data.shown}
    tasks |= {f"the evaluation {name}": suite for name, suite in data.evaluation.items()}
    found = {name: fingerprint_of(map(_told, own)) for name, own in tasks.items() if own}
    if data.comparisons:
        compared = ([_told(each.task), each.chosen, each.rejected] for each in data.comparisons)
        found["the compared answers"] = fingerprint_of(compared)
    return found | data.inputs | verifiers_of(task for own in tasks.values() for task in own)


def verifiers_of(tasks: Iterable[Task]) -> dict[str, str]:
    """Return the fingerprints of the files of users' own verifiers of these tasks."""
    own = sorted({task.verifier for task in tasks if ":" in task.verifier})
    places = {name: _file_of(name.rpartition(":")[0]) for name in own}
    return {f"the verifier {name}": sha256_of(place) for name, place in places.items() if place is not None}


def _file_of(module: str) -> Path | None:
    """Return the file of `file.py` or of `package.module`; None for one without a file."""
    if module.endswith(".py"):
        return Path(module)
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _told(task: Task) -> dict[str, Any]:
    return {name: value for name, value in asdict(task).items() if name != "origin"}
