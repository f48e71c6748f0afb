"""Reads a run folder, finished or not: a missing, torn or unreadable file becomes an empty value and a note."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.evaluation.report.bounded_reading import display_name, parse_json, read_bytes, read_lines
from etude.evaluation.report.panels import Panel, panels_of
from etude.evaluation.report.schema import ANSWERS, PANELS_FILE, RESULT, conforming, describe_rejected
from etude.evaluation.rewards import is_item_right
from etude.renamed import renamed_attempt, renamed_metrics, renamed_setting, renamed_value

MODELS = {"base": "base", "warm_start": "warm start", "preference": "preference", "practice": "practice"}
"""The models of a run in order, with their names on the page."""
PHASES = {
    "knowledge": "Knowledge",
    "text": "Text",
    "mixed": "Text and tasks",
    "tasks": "Tasks",
    "warm_start": "Warm start",
    "preference": "Preference",
    "practice": "Practice",
}
"""The phases of training in order, with their names on the page."""
KNOWLEDGE = "knowledge"
"""The folder of the adaptation before practice, in that of the run."""

MAX_NODES = 150
"""Maximum number of nodes of a tree on the page; larger trees are skipped."""
MAX_ATTEMPT_BYTES = 256_000_000
"""Maximum size of a run's attempts in memory."""
_MAX_CONFIGURATION_BYTES = 1_000_000

_MARKS = ("configuration.yaml", "metrics.jsonl", "result.json")
"""Files of which every started run has at least one."""


def check_is_run(folder: Path) -> None:
    """Raise UserError if a folder is not that of a run, finished or not."""
    advice = "name the folder of a run, such as runs/quickstart"
    if not folder.exists():
        raise UserError(f"run folder {str(folder)!r} does not exist: {advice}")
    if not folder.is_dir():
        raise UserError(f"run folder {str(folder)!r} is not a folder: {advice}")
    if not any((folder / name).exists() for name in _MARKS):
        raise UserError(f"{folder} holds no run, since it has none of {', '.join(_MARKS)}: {advice}")


def report_folders(run: Path) -> list[Path]:
    """Return the runs on the report page of a practice run: itself, and the adaptation if there is one."""
    return [run, *([run / KNOWLEDGE] if (run / KNOWLEDGE / "configuration.yaml").exists() else [])]


@dataclass(frozen=True)
class Run:
    """The contents of a run folder, read once; a missing file is an empty value and a line in `notes`."""

    name: str
    configuration: str
    environment: Mapping[str, Any]
    result: Mapping[str, Any]
    panels: Sequence[Panel]
    """The charts of the run's callbacks."""
    steps: Sequence[Mapping[str, Any]]
    """`metrics.jsonl`, then `timings.jsonl`."""
    evaluation: Mapping[str, Mapping[str, Any]]
    attempts: Sequence[Mapping[str, Any]]
    num_attempts: int | None
    """Number of attempts in the folder; `attempts` may be a sample of them. None: `attempts` are those of the last steps."""
    trees: Sequence[Mapping[str, Any]]
    """The most informative search tree of the first, the middle and the last step, if attempts came from a search."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def is_finished(self) -> bool:
        return self.result.get("status") == "finished"

    @property
    def is_adaptation(self) -> bool:
        """Return whether the run is an adaptation, which has neither attempts nor answers."""
        return is_adaptation(self.configuration)

    @property
    def changed(self) -> Mapping[str, Any]:
        """Return the settings that differ from the recipe's, each with the recipe's own in brackets."""
        found = self.environment.get("changed_settings")
        return found if isinstance(found, dict) else {}

    @property
    def reward(self) -> str:
        """Return the name of the reward that scored the attempts of practice."""
        lines = re.findall(r"^(\w+): (\w+)$", self.configuration, re.MULTILINE)
        return next(
            (str(renamed_value("reward", value)) for name, value in lines if (renamed_setting(name) or name) == "reward"), "verifier"
        )

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """Return the evaluation rows of `result.json`, or of the models evaluated so far."""
        rows = self.result.get("evaluation")
        if rows is None:
            rows = [
                {"model": model, **(suite.get("row") or {}), "suite": suite.get("suite")}
                for model, page in self.evaluation.items()
                for suite in page.get("suites") or ()
            ]
        return rows


def is_adaptation(configuration: str) -> bool:
    """Tell whether this configuration is of an adaptation run."""
    return re.search(r"^study:$", configuration, re.MULTILINE) is not None


def _expected(configuration: str) -> list[str]:
    """List the models that a run with these settings evaluates, without stages of 0 steps."""
    sections = {"warm_start": "warm_start", "preference": "preferences"}
    skipped = {
        model for model, section in sections.items() if re.search(rf"^{section}:\n(?:[ -].*\n)*?  steps: 0$", configuration, re.MULTILINE)
    }
    return [model for model in MODELS if model not in skipped]


def read_run(folder: Path, name: str, max_attempts: int, *, newest: bool = False) -> Run:
    """Read a folder as a run of this name, with at most `max_attempts` attempts: of all steps, or the `newest` ones, last step first."""
    notes: list[str] = []
    configuration = read_bytes(folder / "configuration.yaml", notes, most=_MAX_CONFIGURATION_BYTES) or b""
    settings = configuration.decode("utf-8", errors="replace")
    read: Callable[..., tuple[list[dict[str, Any]], int | None]] = _read_newest_attempts if newest else _read_attempts
    attempts, num_attempts = read(folder / "attempts", max_attempts, [] if is_adaptation(settings) else notes)
    result = _read_json(folder / "result.json", RESULT, notes)
    expected = [] if result or is_adaptation(settings) else _expected(settings)
    evaluated = [model for model in MODELS if model in expected or (folder / "evaluation" / f"{model}.json").is_file()]
    return Run(
        name=name,
        configuration=settings,
        environment=_read_json(folder / "environment.json", {}, notes),
        result=result,
        panels=_read_panels(folder / "panels.json"),
        steps=[_scalars(renamed_metrics(row)) for part in ("metrics.jsonl", "timings.jsonl") for row in _read_rows(folder / part, notes)],
        evaluation={model: found for model in evaluated if (found := _read_json(folder / "evaluation" / f"{model}.json", ANSWERS, notes))},
        attempts=attempts,
        num_attempts=num_attempts,
        trees=_read_trees(folder / "trees", notes),
        notes=list(dict.fromkeys(notes)),
    )


def _read_attempts(folder: Path, limit: int, notes: list[str]) -> tuple[list[dict[str, Any]], int]:
    """Read at most `limit` attempts, whole steps if they fit, spread evenly over the steps; also returns the number of all attempts."""
    files = sorted(folder.glob("*.jsonl.gz"))
    if not files:
        notes.append("attempts are missing")
        return [], 0
    counts = [sum(1 for _ in read_lines(file, notes)) for file in files]
    if sum(counts) > limit:
        num_steps = min(len(files), max(3, limit // max(counts)))
        chosen = [files[i * (len(files) - 1) // max(1, num_steps - 1)] for i in range(num_steps)]
        each = limit // num_steps
    else:
        chosen, each = files, limit
    left = [MAX_ATTEMPT_BYTES]
    attempts: list[dict[str, Any]] = []
    for file in chosen:
        attempts += map(renamed_attempt, islice(_read_rows(file, notes, left), each))
        if left[0] < 0:
            notes.append(f"the attempts are longer than {MAX_ATTEMPT_BYTES / 1e6:g} MB: those after {display_name(file)} are left out")
            break
    return attempts, sum(counts)


def _read_newest_attempts(folder: Path, limit: int, notes: list[str]) -> tuple[list[dict[str, Any]], None]:
    """Read the attempts of the last steps, the last step first: whole steps, as long as there are at most `limit`. Counts no others."""
    left, attempts = [MAX_ATTEMPT_BYTES], list[dict[str, Any]]()
    for file in sorted(folder.glob("*.jsonl.gz"), reverse=True):
        own = list(map(renamed_attempt, islice(_read_rows(file, notes, left), limit)))
        if len(attempts) + len(own) > limit:
            break
        attempts += own
        if left[0] < 0:
            break
    if not attempts:
        notes.append("attempts are missing")
    return attempts, None


def _read_trees(folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.jsonl.gz"))
    chosen = dict.fromkeys(files[number] for number in (0, len(files) // 2, -1)) if files else {}
    found = [(file.name.split(".")[0], most_informative_tree(_read_rows(file, notes))) for file in chosen]
    return [{**tree, "step": int(step)} for step, tree in found if tree and step.isdecimal()]


def most_informative_tree(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Choose a step's most informative tree: the largest that can be shown, among those with correct and wrong answers."""

    def tells(row: Mapping[str, Any]) -> tuple[bool, int]:
        ends = [node for node in row["nodes"] if node.get("finish") and isinstance(node.get("value"), float)]
        return len({is_item_right({**node, "score": node["value"]}) for node in ends}) == 2, len(row["nodes"])

    shown = (row for row in rows if isinstance(row.get("nodes"), list) and 1 < len(row["nodes"]) <= MAX_NODES)
    shown = (row for row in shown if all(isinstance(node, dict) for node in row["nodes"]))
    return max(shown, key=tells, default=None)


def _read_panels(path: Path) -> Sequence[Panel]:
    """Read the panels of a run's callbacks; a run without the file has none."""
    return panels_of(_read_json(path, PANELS_FILE, []).get("panels") or ())


def _read_json(path: Path, shape: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Read the object in a file, or {}, without values that violate its schema; each problem adds a note."""
    raw = read_bytes(path, notes)
    if raw is None:
        return {}
    try:
        found = parse_json(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        notes.append(f"{display_name(path)} is not readable")
        return {}
    odd: list[str] = []
    found = conforming(found, shape, "", odd)
    if odd:
        notes.append(f"{display_name(path)}: {describe_rejected(odd)}")
    return found


def _read_rows(path: Path, notes: list[str], left: list[int] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file (gzip by its name); the torn last line of a killed run adds a note.

    `left` holds the remaining number of bytes to read, and may become negative.
    """
    torn = 0
    for line in read_lines(path, notes):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if left is not None:
            left[0] -= len(line)
            if left[0] < 0:
                break
        if isinstance(row, dict):
            yield row
        else:
            torn += 1
    if torn:
        notes.append(f"{display_name(path)} has {torn} unreadable {'line' if torn == 1 else 'lines'}")


def _scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scalar metrics of a step, for curves."""
    return {name: value for name, value in row.items() if isinstance(value, str | int | float) or value is None}
