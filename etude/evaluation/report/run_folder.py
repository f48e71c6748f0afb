"""Read a run folder, finished or not: whatever is missing, torn or unreadable becomes an empty value and a note."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.evaluation.rewards import is_item_right

MODELS = {"base": "base", "warm_start": "warm start", "preference": "preference", "practice": "practice"}
"""The models of a run in the order in which they came about, and how the page calls them."""

MAX_NODES = 150
"""Of a tree that is drawn; a larger one is left out."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds, read once; a file that is missing is an empty value and a line in `notes`."""

    name: str
    configuration: str
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    """`metrics.jsonl`, then `timings.jsonl`."""
    evaluation: Mapping[str, Mapping[str, Any]]
    attempts: Sequence[Mapping[str, Any]]
    num_attempts: int
    """In the folder; `attempts` may be a sample of them."""
    trees: Sequence[Mapping[str, Any]]
    """Of the first, the middle and the last step, where attempts were searched for: the one that tells most."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def is_finished(self) -> bool:
        return self.result.get("status") == "finished"

    @property
    def is_adaptation(self) -> bool:
        """Whether it read text, and so has neither attempts nor answers."""
        return is_adaptation(self.configuration)

    @property
    def feedback(self) -> str:
        """What scored the attempts of practice."""
        found = re.search(r"^feedback: (\w+)$", self.configuration, re.MULTILINE)
        return found[1] if found else "outcome"

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """The evaluation rows of `result.json`, or of the models evaluated so far."""
        rows = self.result.get("evaluation")
        if rows is None:
            rows = [
                {"model": model, **(suite.get("row") or {}), "suite": suite.get("suite")}
                for model, page in self.evaluation.items()
                for suite in page.get("suites") or ()
            ]
        return rows


def is_adaptation(configuration: str) -> bool:
    """Whether these settings are of a run that adapts a model."""
    return re.search(r"^study:$", configuration, re.MULTILINE) is not None


def read_run(folder: Path, name: str, max_attempts: int) -> Run:
    """Read a folder as a run of this name, with at most `max_attempts` of its attempts."""
    notes: list[str] = []
    configuration = folder / "configuration.yaml"
    settings = configuration.read_text("utf-8", errors="replace") if configuration.is_file() else ""
    attempts, num_attempts = _read_attempts(folder / "attempts", max_attempts, [] if is_adaptation(settings) else notes)
    if not settings:
        notes.append("configuration.yaml is missing")
    result = _read_json(folder / "result.json", notes)
    evaluated = [model for model in MODELS if not result or (folder / "evaluation" / f"{model}.json").is_file()]
    return Run(
        name=name,
        configuration=settings,
        environment=_read_json(folder / "environment.json", notes),
        result=result,
        steps=[row for part in ("metrics.jsonl", "timings.jsonl") for row in _read_lines(folder / part, notes)],
        evaluation={model: found for model in evaluated if (found := _read_json(folder / "evaluation" / f"{model}.json", notes))},
        attempts=attempts,
        num_attempts=num_attempts,
        trees=_read_trees(folder / "trees", notes),
        notes=list(dict.fromkeys(notes)),
    )


def _read_attempts(folder: Path, limit: int, notes: list[str]) -> tuple[list[dict[str, Any]], int]:
    """At most `limit` attempts, whole steps where they fit, spread evenly from the first step to the last; and how many there are."""
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        notes.append("attempts are missing")
        return [], 0
    counts = [sum(1 for _ in _raw_lines(file, notes)) for file in files]
    if sum(counts) > limit:
        num_steps = min(len(files), max(3, limit // max(counts)))
        chosen = [files[i * (len(files) - 1) // max(1, num_steps - 1)] for i in range(num_steps)]
        each = limit // num_steps
    else:
        chosen, each = files, limit
    return [row for file in chosen for row in _read_lines(file, notes)[:each]], sum(counts)


def _read_trees(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.jsonl.gz"))
    chosen = dict.fromkeys(files[place] for place in (0, len(files) // 2, -1)) if files else {}
    found = [(file.name.split(".")[0], telling_tree(_read_lines(file, notes))) for file in chosen]
    return [{**tree, "step": int(step)} for step, tree in found if tree and step.isdecimal()]


def telling_tree(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of a step's trees the one that tells most: with right and wrong answers, and of these the one of most nodes that can be drawn."""

    def tells(row: Mapping[str, Any]) -> tuple[bool, int]:
        ends = [node for node in row["nodes"] if node.get("finish") and isinstance(node.get("value"), float)]
        return len({is_item_right({**node, "score": node["value"]}) for node in ends}) == 2, len(row["nodes"])

    drawn = [row for row in rows if isinstance(row.get("nodes"), list) and 1 < len(row["nodes"]) <= MAX_NODES]
    drawn = [row for row in drawn if all(isinstance(node, dict) for node in row["nodes"])]
    return max(drawn, key=tells, default=None)


def _read_json(path: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a file, or {} and a note."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        notes.append(f"{_place(path)} is missing")
        return {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        notes.append(f"{_place(path)} is not readable")
        return {}
    return found


def _read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file (gzip by its name); the torn last line of a killed run is a note, not an error."""
    if not path.is_file():
        notes.append(f"{_place(path)} is missing")
        return []
    rows, torn = [], 0
    for line in _raw_lines(path, notes):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            torn += 1
    if torn:
        notes.append(f"{_place(path)} has {torn} unreadable {'line' if torn == 1 else 'lines'}")
    return rows


def _raw_lines(path: Path, notes: list[str]) -> Iterator[bytes]:
    """The lines that are not blank; a gzip stream that breaks off ends with what came before, and a note."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            yield from (line for line in lines if line.strip())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        notes.append(f"{_place(path)} breaks off")


def _place(path: Path) -> str:
    """The file's name as the run folder's layout gives it."""
    return f"{path.parent.name}/{path.name}" if path.parent.name in ("attempts", "trees", "evaluation") else path.name
