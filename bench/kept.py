"""A benchmark's shapes as cells of a table: those that are finished are kept, and another call goes on with the rest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from bench.rollout import Shape
from studies.cells import Options, Table, compute


class Shapes(Table, Protocol):
    """A table with a cell a shape."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...


def found_of(plan: Shapes, seed: int, out: Path) -> dict[str, Any]:
    """What every shape's cell holds, in order, computed where it is not there yet; settings, commits and hardware of all."""
    options = Options(out, None, hours=1e9, only=[], seeds=[seed], is_tiny=False)
    computed = {(cell["id"], cell["seed"]): cell for cell in compute([(name, seed) for name in plan.shapes], plan, options)}
    rows = [computed[name, seed] for name in plan.shapes]
    return {
        "shapes": rows,
        "settings": plan.settings(next(iter(plan.shapes)), seed) | {"shape": list(plan.shapes), "seed": seed},
        "commit": "; ".join(sorted({str(row["commit"]) for row in rows})),
        "hardware": "; ".join(sorted({row["hardware"] for row in rows})),
    }
