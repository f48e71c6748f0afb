"""What a benchmark writes: its numbers as JSON, and beside them the table (`.md`) and the picture (`.svg`)."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure


def write(found: Mapping[str, Any], path: Path, table: str, draw: Callable[[Mapping[str, Any], Path], None] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(table)
    if draw:
        draw(found, path.with_suffix(".svg"))


def save_picture(figure: Figure, path: Path) -> None:
    """Text stays text, and the same numbers give the same file."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "etude"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
