"""Compute the cells of a study or a benchmark once, and keep each as a file.

    OUT/cells/ARM-SEED.json   what a cell found, with the settings and the commit that it was computed from

Work stops between cells when its hours are over and goes on another day. Cells of other settings than today's are refused, and none is
computed into the repository from sources that no commit has (`experiments.commits`).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from etude.errors import UserError
from etude.files import write_atomically
from etude.renamed import with_defaults
from etude.settings.configuration import flatten
from etude.training.run_folder import differing, environment, may_change
from experiments.commits import commit_of, refuse_changed

Cell = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Which cells are computed, from which data, for how long, and where they are kept."""

    out: Path
    data: Path | None
    hours: float
    only: list[str]
    seeds: list[int]
    is_tiny: bool
    start: float = field(default_factory=time.monotonic)
    """When the hours began: a study of several tables has them once."""


class Table(Protocol):
    """Compute the cells of a study."""

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        """Return everything that decides what the cell finds."""

    def defaults(self) -> dict[str, Any]:
        """Return the defaults of the settings: a cell that is older than a setting was computed with its default."""
        return {}

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Return what the cell finds, with the `commit` and `hardware` that it was found on."""


def made_here(*more: str) -> dict[str, str]:
    """Return the commit and the hardware that this process computes on; `more` stands behind the hardware, such as a precision."""
    where = environment()
    return {"commit": where["commit"], "hardware": hardware_of(where, *more)}


def hardware_of(where: Mapping[str, Any], *more: str) -> str:
    """Say what hardware the facts of an environment name."""
    return ", ".join([where["processor"], f"{where['threads']} threads", *more])


def compute(todo: Sequence[tuple[str, int]], table: Table, chosen: Options) -> list[Cell]:
    """Run the cells of `todo` that are missing, in order, while there is time; return all cells that there are, by file name."""
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
        if not chosen.is_tiny:
            refuse_changed(f"cell {arm}, seed {seed}", chosen.out)
        print(f"cell {arm}, seed {seed}", flush=True)
        try:
            found: Cell = {"id": arm, "seed": seed, "settings": table.settings(arm, seed)} | table.run(arm, seed, chosen)
        except UserError as error:
            raise SystemExit(f"cell {arm}, seed {seed}: {error}") from error
        cells[path] = found | {"commit": commit_of(found.get("commit"))}
        write_atomically(path, json.dumps(cells[path], indent=1) + "\n")
    return [cells[path] for path in sorted(cells)]


FORMER = {"number_sorting": "quickstart"}
"""Recipes that had another name when some cells were computed; a run's own suite has its recipe's name."""


def _read(path: Path, table: Table) -> Cell:
    recipe: str = getattr(table, "recipe", "")
    cell: Cell = json.loads(path.read_text())
    if recipe in FORMER:
        cell = _renamed(cell, FORMER[recipe], recipe)
    again = "remove the cell (and its run) to compute it again, or check out the commit that it names"
    settings = flatten(json.loads(json.dumps(table.settings(cell["id"], cell["seed"]))))  # as a file has them: lists for tuples
    defaults = {name: value for name, value in table.defaults().items() if name in settings}  # of what this cell has at all
    refuse_others(f"{path} was computed", with_defaults(flatten(cell["settings"]), defaults), settings, again)
    return cell


def _renamed(value: Any, before: str, now: str) -> Any:
    """Return JSON with the suite `before` called `now`, as a key and as the value of `suite`."""
    if isinstance(value, list):
        return [_renamed(each, before, now) for each in value]
    if not isinstance(value, dict):
        return value
    named = {now if name == before else name: _renamed(each, before, now) for name, each in value.items()}
    return named | ({"suite": now} if named.get("suite") == before else {})


def refuse_others(made: str, kept: Mapping[str, Any], settings: Mapping[str, Any], again: str) -> None:
    """Raise SystemExit where `kept` settings differ from those of now; `again` says how to make the cell or run again."""
    names = [name for name in differing(kept, settings) if not may_change(name)]  # what changes no result but for rounding
    if names:
        raise SystemExit(f"{made} with another {names[0]} than there is now (and {len(names) - 1} more): {again}")
