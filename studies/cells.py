"""The table of a study: cells that are computed once, kept as files, and reduced to a result.

    studies/NAME/cells/ARM-SEED.json   what a cell found
    studies/NAME/result.json           claim, commit, hardware, rows, verdict, because

A study stops between cells when its hours are over and goes on another day.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.runs import environment, write_atomically

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does: huge pages for torch's memory
os.environ.setdefault("TQDM_DISABLE", "1")

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


def options(name: str, arms: Sequence[str], seeds: Sequence[int]) -> Options:
    """Parse a study's command line; `--tiny` writes into a temporary folder unless told otherwise."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}")
    parser.add_argument("--data", type=Path, help="the folder of data sets")
    parser.add_argument("--hours", type=float, default=1e9, help="start no new cell after this time")
    parser.add_argument("--only", nargs="+", default=[], choices=arms, metavar="ID", help=f"arms to compute: {', '.join(arms)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(seeds))
    parser.add_argument("--tiny", action="store_true", help="the same path in seconds, with a random model")
    parser.add_argument("--out", type=Path, help=f"default studies/{name}")
    chosen = parser.parse_args()
    out = chosen.out or (Path(tempfile.mkdtemp()) if chosen.tiny else Path(__file__).parent / name)
    return Options(out, chosen.data, chosen.hours, chosen.only, chosen.seeds, chosen.tiny)


def compute(todo: Sequence[tuple[str, int]], run: Callable[[str, int], Cell], chosen: Options) -> list[Cell]:
    """Run the cells that are missing, in order, while there is time; returns all cells that there are."""
    start = time.monotonic()
    folder = chosen.out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    for arm, seed in todo:
        path = folder / f"{arm}-{seed}.json"
        if path.exists() or (chosen.only and arm not in chosen.only):
            continue
        if time.monotonic() - start > chosen.hours * 3600:
            print(f"{chosen.hours} hours are over: call again to go on")
            break
        print(f"cell {arm}, seed {seed}", flush=True)
        cell = {"id": arm, "seed": seed, "hardware": environment()["processor"], **run(arm, seed)}
        write_atomically(path, json.dumps(cell, indent=1) + "\n")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def write_result(chosen: Options, claim: str, rows: Sequence[Mapping[str, Any]], verdict: str, because: str) -> Path:
    """Write `result.json` and print its rows."""
    if verdict not in ("holds", "does not hold", "undecided"):
        raise UserError(f"verdict must be holds, does not hold or undecided, got {verdict!r}")
    facts = environment()
    result = {
        "claim": claim,
        "commit": facts["commit"],
        "hardware": f"{facts['processor']}, {facts['threads']} threads",
        "rows": list(rows),
        "verdict": verdict,
        "because": because,
    }
    path = chosen.out / "result.json"
    write_atomically(path, json.dumps(result, indent=1) + "\n")
    for row in rows:
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    print(f"{verdict}: {because}\n{path}")
    return path
