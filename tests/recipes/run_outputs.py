"""What tests read of the folder of a run, and hear of a run."""

import gzip
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from etude.console.reporter import Silent
from etude.files import read_jsonl
from etude.training.interruption import Interrupted

SAME = ("metrics.jsonl", "result.json", "model/model.safetensors", "attempts", "trees", "evaluation")
"""Files and folders that have to be the same however often a run was killed."""


def practised(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the steps of practice."""
    return [row for row in read_jsonl(folder / "metrics.jsonl") if row["phase"] == "practice"]


def attempts_of(folder: Path, kind: str = "attempts") -> list[dict[str, Any]]:
    """What is kept of all attempts, or of all `trees`."""
    files = sorted((folder / kind).glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def assert_same(first: Path, second: Path, names: Iterable[str] = SAME) -> None:
    """Compare files, and all that is in folders, byte for byte."""
    for name in names:
        found = [
            {str(path.relative_to(folder)): path.read_bytes() for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()}
            for folder in (first, second)
        ]
        assert found[0] == found[1] and (found[0] or name in ("attempts", "trees")), name


def assert_resumes(
    small: Callable[..., Any],
    options: dict[str, Any],
    scratch: Path,
    killing: AbstractContextManager[None],
    whole: Path | None = None,
    names: Iterable[str] = SAME,
) -> None:
    """A run that `killing` ends goes on to the bytes of `whole`, of the same options, which is made where it is not given."""
    if whole is None:
        whole = scratch / "whole"
        small(whole, options)
    with killing:
        small(scratch / "killed", options)
    small(scratch / "killed", options, resume=True)
    assert_same(whole, scratch / "killed", names)


class Listening(Silent):
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Stops(Listening):
    """Ends a run in a phase, before a step."""

    def __init__(self, phase: str, step: int) -> None:
        super().__init__()
        self.at = phase, step

    def step(self, phase: str, step: int, *_: Any) -> None:
        if (phase, step) == self.at:
            raise Interrupted(15)
