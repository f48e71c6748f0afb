"""Compute fingerprints that reveal changes of written files and of input data (SHA-256, as hexadecimal digits)."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def sha256_of(path: Path) -> str:
    """Read a file and return its checksum."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums_of(folder: Path) -> dict[str, str]:
    """Read all files of a folder and return their checksums by name."""
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def difference(folder: Path, checksums: dict[str, str]) -> str | None:
    """Describe how a folder differs from its checksums; None if it does not. Added files are ignored, except weights."""
    for name, checksum in checksums.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_of(folder / name) != checksum:
            return f"{name} is not what was written"
    strange = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in checksums)
    return f"{strange[0]} does not belong to it" if strange else None


def fingerprint_of(values: Iterable[Any]) -> str:
    """Return the fingerprint of JSON values in their order, whatever the order of names in objects.

    >>> fingerprint_of([{"a": 1, "b": 2}]) == fingerprint_of([{"b": 2, "a": 1}])
    True
    >>> fingerprint_of(["x", "y"]) == fingerprint_of(["y", "x"])
    False
    """
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value, sort_keys=True, default=_name_of_type).encode() + b"\n")
    return found.hexdigest()


def _name_of_type(value: object) -> str:
    """Return a placeholder for a value that JSON does not know, whose text may contain a memory address."""
    return type(value).__name__
