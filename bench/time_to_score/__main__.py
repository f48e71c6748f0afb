"""Seconds of practice to half of the gain that TRL makes: etude beside TRL's GRPO, tuned by hand, from one warm start.

    make bench-peers                                    once: the peers' environments
    python -m bench.time_to_score [--json FILE] [--seeds 0 1] [--steps 60] [--peers trl-tuned] [--cells DIR] [--tiny]

The task is that of `number_sorting`, the warm start its own, made once a seed; `contestants.py` says which settings both have in
common and what differs. `trl-tuned` has half-precision weights where those pay; `trl-float32` differs in that alone, since rounding
weights to half precision loses most updates at such a learning rate. `etude-recomputed` is etude with TRL's ratios (`contestants.py`).

The score, chosen beforehand: accuracy of 4 samples each at temperature 1 on 256 items of a split of their own, in neither training nor
the test suite. It is what practice maximises, and 1,024 answers make it smoother than 256 greedy ones, which stand beside it. It is
measured every 6 steps, outside of the clock, by etude's engine with the same random numbers, whoever made the weights. The clock counts
steps alone: sampling, judging, update, and the new weights' way to where samples come from.

A peer's gain is its last score less its first, as measured. What noise does to a curve between is smoothed alike for all: the rising
curve nearest to the scores (isotonic regression), straight between two measurements. A seed's ratio is the peer's seconds to half of its
own gain by etude's to that same score, 0 where etude never gets there; the figure is the median of the seeds. Without a gain there is no
ratio, and the command says so.

Who learns more is read from the lead: the peer's mean score over the second half of the measurements less etude's, seed by seed, with the
interval over runs (`experiments.runs`). One measurement, or one seed, says little: runs differ by about 4 points.

A seed's warm start and each practice from it are cells, kept in DIR: a command that was killed goes on with the cells that are there, and
refuses those of other settings. A seed's cells are compared only where one kind of machine made them all. `--json FILE` also writes the
table (`.md`) and the picture (`.svg`) beside it.
"""

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.time_to_score.cells import PEERS, RECOMPUTED, SAMPLES, WARM_START, Plan
from bench.time_to_score.curves import half_gain, late, seconds_to, times_as_long
from bench.time_to_score.page import draw, table
from etude.device.machine import Machine, resolve_device
from etude.errors import UserError
from experiments.benchmark import Argument, Benchmark
from experiments.cells import Cell, Options, compute
from experiments.turns import OURS, spread

CELLS = Path("runs/time_to_score")
RECIPES = ("number_sorting", "tiny")


def found_of(chosen: Namespace) -> dict[str, Any]:
    if chosen.tiny:
        plan = plan_of("tiny", steps=2, every=1, items=8, precision=chosen.precision)
        return measured(plan, chosen.seeds[:1], [], chosen.cells or Path(tempfile.mkdtemp()))
    plan = plan_of(chosen.recipe, steps=chosen.steps, every=chosen.every, items=256, precision=chosen.precision)
    return measured(plan, chosen.seeds, chosen.peers, chosen.cells or CELLS)


def plan_of(recipe: str, *, steps: int, every: int, items: int, precision: str) -> Plan:
    """Make a plan for this machine; `precision` auto is decided now, once for all of its cells."""
    for name, value in (("--steps", steps), ("--every", every)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    decided = resolve_device(Machine(device="cpu", dtype=precision))  # type: ignore[arg-type]
    return Plan(recipe, steps, every, items, decided.precision)


def measured(plan: Plan, seeds: Sequence[int], peers: Sequence[str], out: Path) -> dict[str, Any]:
    """Measure the curves of all seeds and peers where they are not there yet, and compare them."""
    todo = [(arm, seed) for seed in seeds for arm in (WARM_START, OURS, *peers)]
    options = Options(out, None, hours=1e9, only=[], seeds=list(seeds), is_tiny=plan.recipe == "tiny")
    computed = {(cell["id"], cell["seed"]): cell for cell in compute(todo, plan, options)}
    theirs = {peer: [computed[peer, seed] for seed in seeds] for peer in peers}
    return reduced([computed[OURS, seed] for seed in seeds], theirs) | {
        "settings": plan.settings(OURS, seeds[0]) | {"recipe": plan.recipe, "seed": list(seeds), "samples": SAMPLES},
    }


def reduced(ours: Sequence[Cell], theirs: Mapping[str, Sequence[Cell]]) -> dict[str, Any]:
    """Return ratios, what they come from seed by seed, why one is missing, and the curves."""
    found = {peer: [compared(own, cell) for own, cell in zip(ours, cells, strict=True)] for peer, cells in theirs.items()}
    cells = [*ours, *(cell for each in theirs.values() for cell in each)]
    return {
        "ratios": {peer: _median(rows) for peer, rows in found.items()},
        "compared": found,
        "remarks": [_no_gain(peer, row) for peer, rows in found.items() for row in rows if row["gain"] <= 0],
        "curves": [{name: cell[name] for name in ("id", "seed", "steps", "seconds", "score", "greedy", "step_seconds")} for cell in cells],
        "versions": {cell["id"]: cell["versions"] for cell in cells},
        "commit": "; ".join(sorted({str(cell["commit"]) for cell in cells})),
        "hardware": "; ".join(sorted({cell["hardware"] for cell in cells})),
    }


def compared(ours: Cell, theirs: Cell) -> dict[str, Any]:
    """Compare one seed: the peer's gain, the score at half of it, when each gets there, and how many times as long the peer takes."""
    scores = theirs["score"]
    if scores[0] != ours["score"][0]:
        raise UserError(f"{OURS} and {theirs['id']} of seed {ours['seed']} began with other scores: remove this seed's cells")
    if theirs["hardware"] != ours["hardware"]:
        made = f"{OURS} ({ours['hardware']}) and {theirs['id']} ({theirs['hardware']}) of seed {ours['seed']}"
        raise UserError(f"{made} practised on different machines: remove one of the cells, and make it on the other's machine")
    gain, target = half_gain(scores)
    row = {"seed": ours["seed"], "steps": theirs["steps"][-1], "start": scores[0], "end": scores[-1], "gain": gain, "target": target}
    row["lead"] = late(scores) - late(ours["score"])
    mine, other = (seconds_to(target, cell["seconds"], cell["score"]) if gain > 0 else None for cell in (ours, theirs))
    return row | {"our_seconds": mine, "their_seconds": other, "ratio": times_as_long(other, mine)}


def _median(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the median of the seeds' ratios, if each has one."""
    each = [row["ratio"] for row in rows]
    return None if None in each else spread(each)["median"]


def _no_gain(peer: str, row: Mapping[str, Any]) -> str:
    return (
        f"{peer} gains nothing in {row['steps']} steps from seed {row['seed']} (score {row['start']:.3f}, then {row['end']:.3f}), so there "
        f"is no half of its gain to time: take more steps, such as --steps {2 * row['steps']} with other --cells"
    )


ARGUMENTS = {
    "recipe": Argument(RECIPES[0], "what is practised; tiny: a random model, a run takes seconds", RECIPES),
    "seeds": Argument([0, 1]),
    "steps": Argument(60),
    "every": Argument(6, "steps between two measurements"),
    "peers": Argument(["trl-tuned"], choices=(*PEERS, RECOMPUTED)),
    "cells": Argument(None, f"where finished runs are kept, default {CELLS}"),
    "precision": Argument("auto", "of matrix products; auto: the faster", ("auto", "float32", "bfloat16")),
    "tiny": Argument(False, "etude alone, 2 steps of a random model: the same path in seconds"),
}
BENCHMARK = Benchmark("time_to_score", __doc__, ARGUMENTS, found_of, table, draw)

if __name__ == "__main__":
    BENCHMARK.main()
