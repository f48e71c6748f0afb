"""The command of a study: parse arguments, compute cells, write result, figure and table.

    python -m studies.NAME [--data DIR] [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny] [--out DIR]

    studies/NAME/cells/ARM-SEED.json   what a cell found (`experiments.cells`)
    studies/NAME/result.json           claim, rule, commit, hardware, rows, verdict, because, power
    studies/NAME/figure.svg            the rows as a figure

The rows also go as a table, with the verdict below it, to the pages that have a place for them (`experiments.pages`), and the verdict to
the table of all studies. Result, figure and tables follow from the cells alone: `--hours 0` computes no cell and writes the same files.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from etude.errors import UserError
from etude.files import write_atomically
from experiments import figures, pages, verdicts
from experiments.cells import Cell, Options
from experiments.commits import is_dirty
from experiments.measures import Verdict
from experiments.runs import LEAST, power_of
from experiments.tables import Row

Found = tuple[Sequence[Cell], Sequence[Row], Verdict]
POINTS = "points"
"""Percentage points, in which differences of shares are written."""


class Changed(NamedTuple):
    """A rule that is not the one that the study had before."""

    before: str
    """The verdict by the rule of before."""
    how: str
    """When it was changed, from what and why."""


class Compared(NamedTuple):
    """Differences of each seed that a verdict rests on."""

    each_seed: Sequence[float]
    unit: str = POINTS
    least: float | None = None
    """How far beyond the bound the mean of fewer than five seeds has to be; None: 8 points, or what the interval shows in another unit."""

    @property
    def power(self) -> dict[str, Any]:
        """Return how small a difference is seen, in its unit."""
        least = LEAST if self.least is None and self.unit == POINTS else self.least
        return power_of(self.each_seed, least) | {"unit": self.unit}


def compared(rows: Sequence[Row], wanted: Mapping[str, tuple[str, str]], set_name: str = "") -> dict[str, Compared]:
    """Return differences of each seed by the names of `wanted`, each a row's id and its measure; what no row has is left out."""
    found = {row["id"]: row for row in rows if set_name in ("", row["set"])}
    each = {name: found.get(arm, {}).get(f"{measure}_each_seed", []) for name, (arm, measure) in wanted.items()}
    return {name: Compared(values) for name, values in each.items() if values}


@dataclass(frozen=True)
class Study:
    """An experiment with a claim."""

    file: str
    """The study's own; its cells and results are kept in the folder beside it that has its name."""
    claim: str
    arms: Sequence[str]
    seeds: Sequence[int]
    find: Callable[[Options], Found | None]
    """Compute the cells that are missing, and reduce all of them to rows and a verdict; None: there is no result yet."""
    table: Callable[[Sequence[Row]], str]
    draw: Callable[[Sequence[Row], Path], object] = figures.draw
    data: str = ""
    """What the folder of `--data` has to hold; empty: the study can do without."""
    rule: str = ""
    """How the verdict follows from the rows, in one sentence."""
    about: str = ""
    """What the verdict is about where that is less than the claim says, such as the one model that was measured."""
    compared: Callable[[Sequence[Row]], Mapping[str, Compared]] = lambda _: {}
    """Return what the verdict rests on, by what it is a difference of: from it follows how small an effect the study can see."""
    changed: Changed | None = None
    remarks: Sequence[str] = ()
    """What a reader of the table has to know of how its rows came about; whole sentences."""
    extracts: Mapping[str, Callable[[Sequence[Row]], str]] = field(default_factory=dict)
    """Other tables of the rows, by the name of their place on a page."""

    @property
    def folder(self) -> Path:
        return Path(self.file).with_suffix("")

    def main(self) -> None:
        """Run the study as its command line says."""
        chosen = self._options()
        if (found := self.find(chosen)) is not None:
            self.write(chosen, *found)

    def _options(self) -> Options:
        name = self.folder.name
        parser = argparse.ArgumentParser(prog=f"python -m studies.{name}")
        parser.add_argument("--data", type=Path, help="the folder of data sets")
        parser.add_argument("--hours", type=float, default=1e9, help="start no new cell after this time")
        parser.add_argument(
            "--only", nargs="+", default=[], choices=self.arms, metavar="ID", help=f"arms to compute: {', '.join(self.arms)}"
        )
        parser.add_argument(
            "--seeds", nargs="+", type=int, default=list(self.seeds), choices=self.seeds, metavar="SEED", help="seeds to compute"
        )
        parser.add_argument("--tiny", action="store_true", help="the same path in seconds, with a random model; computes the first seed")
        parser.add_argument("--out", type=Path, help=f"default studies/{name}; with --tiny a temporary folder")
        chosen = parser.parse_args()
        if chosen.data is None and self.data and not chosen.tiny:
            parser.error(f"--data DIR is needed: the folder that holds {self.data}")
        if chosen.data and not chosen.data.is_dir():
            parser.error(f"--data {chosen.data}: no such folder")
        out = chosen.out or (Path(tempfile.mkdtemp()) if chosen.tiny else self.folder)
        return Options(out, chosen.data, chosen.hours, chosen.only, chosen.seeds[:1] if chosen.tiny else chosen.seeds, chosen.tiny)

    def write(self, chosen: Options, cells: Sequence[Cell], rows: Sequence[Row], verdict: Verdict) -> None:
        """Write result, figure and table, and print the rows; `commit` and `hardware` are those of the cells.

        Raises UserError for a verdict that is none.
        """
        if not rows:
            raise SystemExit("no cell is there yet, so there is no result to write")
        if verdict[0] not in ("holds", "does not hold", "undecided"):
            raise UserError(f"verdict must be holds, does not hold or undecided, got {verdict[0]!r}")
        result = self.result(cells, rows, verdict)
        write_atomically(path := chosen.out / "result.json", json.dumps(result, indent=1) + "\n")
        self.draw(rows, chosen.out / "figure.svg")
        if chosen.out.resolve() == self.folder.resolve():
            for name, shown in self.shown(result).items():
                pages.fill(name, shown)
            pages.fill("verdicts", verdicts.verdicts_table(verdicts.results()))
        for row in rows:
            print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
        print(f"{verdict[0]}: {verdict[1]}\n{path}")

    def result(self, cells: Sequence[Cell], rows: Sequence[Row], verdict: Verdict) -> dict[str, Any]:
        """Return what `result.json` holds; `commit` and `hardware` are those of the cells, and `cells` says how many there are and how many
        of them name a commit from which the sources differed.
        """
        facts: dict[str, Any] = {name: "; ".join(sorted({str(cell[name]) for cell in cells})) for name in ("commit", "hardware")}
        power = {name: own.power for name, own in self.compared(rows).items() if own.each_seed}
        changed = {"verdict_before": self.changed.before, "rule_changed": self.changed.how} if self.changed else {}
        more = {"rule": self.rule, "about": self.about, "power": power, "remarks": list(self.remarks)} | changed
        return {
            "claim": self.claim,
            **facts,
            "cells": {"number": len(cells), "dirty": sum(is_dirty(cell["commit"]) for cell in cells)},
            "rows": list(rows),
            "verdict": verdict[0],
            "because": verdict[1],
            **{name: value for name, value in more.items() if value},
        }

    def shown(self, result: Mapping[str, Any]) -> dict[str, str]:
        """Return what pages show of a result, by the name of its place."""
        return {self.folder.name: self.page(result)} | {name: extract(result["rows"]) for name, extract in self.extracts.items()}

    def page(self, result: Mapping[str, Any]) -> str:
        """Return the table of a result with its verdict below, as pages show them."""
        return f"{self.table(result['rows'])}\n{verdicts.judged(result)}"
