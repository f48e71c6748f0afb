"""Fingerprint a run's inputs beside its settings, so that a resume with other inputs is refused.

A task counts with its question, answer, verifier and form, but not with its origin: a folder may move. A verifier in a file counts with the
file, not with what it imports.
"""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etude.learn.example import Example
from etude.recipes.materials import Materials
from etude.tasks.task import Task
from etude.training.fingerprints import fingerprint_of, sha256_of


def inputs_of(materials: Materials, replayed: Sequence[Example]) -> dict[str, str]:
    """Return the fingerprints of a practice run's inputs, by their names in messages."""
    tasks = {"the training tasks": materials.train, "the demonstrations": materials.demonstrations}
    tasks |= {f"the evaluation {name}": suite for name, suite in materials.suites.items()}
    found = {name: fingerprint_of(map(_told, own)) for name, own in tasks.items() if own}
    if materials.comparisons:
        compared = ([_told(each.task), each.chosen, each.rejected] for each in materials.comparisons)
        found["the compared answers"] = fingerprint_of(compared)
    if replayed:
        found["the replayed text"] = fingerprint_of([piece.prompt, piece.completion] for piece in replayed)
    return found | verifiers_of(task for own in tasks.values() for task in own)


def verifiers_of(tasks: Iterable[Task]) -> dict[str, str]:
    """Return the fingerprints of the files with users' own verifiers of these tasks."""
    own = sorted({task.verifier for task in tasks if ":" in task.verifier})
    places = {name: _file_of(name.rpartition(":")[0]) for name in own}
    return {f"the verifier {name}": sha256_of(place) for name, place in places.items() if place is not None}


def _file_of(module: str) -> Path | None:
    """Return the file of `file.py` or of `package.module`; None without a file."""
    if module.endswith(".py"):
        return Path(module)
    spec = importlib.util.find_spec(module)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _told(task: Task) -> dict[str, Any]:
    return {name: value for name, value in asdict(task).items() if name != "origin"}
