"""The table of a study (or a benchmark): cells that are computed once, kept as files, and reduced to a result.

    studies/NAME/cells/ARM-SEED.json   what a cell found, with the settings and the commit that it was computed from
    studies/NAME/result.json           claim, commit, hardware, rows, verdict, because
    studies/NAME/figure.svg            the rows as a picture

A study stops between cells when its hours are over and goes on another day. Cells of other settings than today's are refused.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.errors import UserError
from etude.settings.configuration import flatten
from etude.training.run_folder import differing, may_change, write_atomically
from studies.figure import draw

Cell = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """The command line of a study."""

    out: Path
    data: Path | None
    hours: float
    only: list[str]
    seeds: list[int]
    is_tiny: bool
    start: float = field(default_factory=time.monotonic)
    """When the study began, whose hours these are, however many tables it has."""


class Table(Protocol):
    """What the cells of a study are computed by."""

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        """Everything that decides what the cell finds."""

    def defaults(self) -> dict[str, Any]:
        """What settings are where nobody says otherwise: a cell that is older than a setting was computed with its default."""

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """What the cell finds, with the `commit` and `hardware` that it was found on."""


def options(name: str, arms: Sequence[str], seeds: Sequence[int]) -> Options:
    """Parse a study's command line; `--tiny` writes into a temporary folder unless told otherwise, and computes the first seed."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}")
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--hours", type=float, default=1e9, help="start no new cell after this time")
    parser.add_argument("--only", nargs="+", default=[], choices=arms, metavar="ID", help=f"arms to compute: {', '.join(arms)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds), choices=seeds, metavar="SEED", help="seeds to compute")
    parser.add_argument("--tiny", action="store_true", help="the same path in seconds, with a random model")
    parser.add_argument("--out", type=Path, help=f"default studies/{name}")
    chosen = parser.parse_args()
    if chosen.data and not chosen.data.is_dir():
        parser.error(f"--data {chosen.data}: no such folder")
    out = chosen.out or (Path(tempfile.mkdtemp()) if chosen.tiny else Path(__file__).parent / name)
    return Options(out, chosen.data, chosen.hours, chosen.only, chosen.seeds[:1] if chosen.tiny else chosen.seeds, chosen.tiny)


def compute(todo: Sequence[tuple[str, int]], table: Table, chosen: Options) -> list[Cell]:
    """Run the cells that are missing, in order, while there is time; returns all cells that there are."""
    folder = chosen.out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    cells = {path: _read(path, table) for path in sorted(folder.glob("*.json"))}
    for arm, seed in todo:
        path = folder / f"{arm}-{seed}.json"
        if path in cells or seed not in chosen.seeds or (chosen.only and arm not in chosen.only):
            continue
        if time.monotonic() - chosen.start > chosen.hours * 3600:
            print(f"{chosen.hours} hours are over: call again to go on")
            break
        print(f"cell {arm}, seed {seed}", flush=True)
        try:
            cells[path] = {"id": arm, "seed": seed, "settings": table.settings(arm, seed)} | table.run(arm, seed, chosen)
        except UserError as error:
            raise SystemExit(f"cell {arm}, seed {seed}: {error}") from error
        write_atomically(path, json.dumps(cells[path], indent=1) + "\n")
    return [cells[path] for path in sorted(cells)]


def _read(path: Path, table: Table) -> Cell:
    cell = json.loads(path.read_text())
    again = "remove the cell (and its run) to compute it again, or check out the commit that it names"
    settings = flatten(json.loads(json.dumps(table.settings(cell["id"], cell["seed"]))))  # as a file has them: lists for tuples
    defaults = {name: value for name, value in table.defaults().items() if name in settings}  # of what this cell has at all
    refuse_others(f"{path} was computed", defaults | flatten(cell["settings"]), settings, again)
    return cell


def refuse_others(made: str, kept: Mapping[str, Any], settings: Mapping[str, Any], again: str) -> None:
    """End where what is kept was made with other settings than there are now."""
    names = [name for name in differing(kept, settings) if not may_change(name)]  # what changes no result but for rounding
    if names:
        raise SystemExit(f"{made} with another {names[0]} than there is now (and {len(names) - 1} more): {again}")


def write_result(
    chosen: Options,
    claim: str,
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    verdict: str,
    because: str,
    picture: Callable[[Sequence[Mapping[str, Any]], Path], object] = draw,
) -> Path:
    """Write `result.json` and its figure, and print the rows; `commit` and `hardware` are those of the cells."""
    if not rows:
        raise SystemExit("no cell is there yet, so there is no result to write")
    if verdict not in ("holds", "does not hold", "undecided"):
        raise UserError(f"verdict must be holds, does not hold or undecided, got {verdict!r}")
    result = {
        "claim": claim,
        "commit": "; ".join(sorted({str(cell["commit"]) for cell in cells})),
        "hardware": "; ".join(sorted({cell["hardware"] for cell in cells})),
        "rows": list(rows),
        "verdict": verdict,
        "because": because,
    }
    path = chosen.out / "result.json"
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    picture(rows, chosen.out / "figure.svg")
    for row in rows:
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    print(f"{verdict}: {because}\n{path}")
    return path
