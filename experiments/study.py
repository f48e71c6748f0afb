"""The command of a study: parse arguments, compute cells, write result, figure and table.

    python -m studies.NAME [--data DIR] [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny] [--out DIR]

    studies/NAME/cells/ARM-SEED.json   what a cell found (`experiments.cells`)
    studies/NAME/result.json           claim, commit, hardware, rows, verdict, because
    studies/NAME/figure.svg            the rows as a figure

The rows also go as a table to the pages that have a place for it (`experiments.pages`). Result, figure and table follow from the cells
alone: `--hours 0` computes no cell and writes the same files.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import write_atomically
from experiments import figures, pages
from experiments.cells import Cell, Options
from experiments.measures import Verdict
from experiments.tables import Row

Found = tuple[Sequence[Cell], Sequence[Row], Verdict]


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
        facts: dict[str, Any] = {name: "; ".join(sorted({str(cell[name]) for cell in cells})) for name in ("commit", "hardware")}
        result = {"claim": self.claim, **facts, "rows": list(rows), "verdict": verdict[0], "because": verdict[1]}
        write_atomically(path := chosen.out / "result.json", json.dumps(result, indent=1) + "\n")
        self.draw(rows, chosen.out / "figure.svg")
        if chosen.out.resolve() == self.folder.resolve():
            pages.fill(self.folder.name, self.table(rows))
        for row in rows:
            print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
        print(f"{verdict[0]}: {verdict[1]}\n{path}")
