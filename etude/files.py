"""Read files of JSON lines, and write files whole."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.errors import UserError


def read_jsonl(path: Path, needs: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the rows of a JSONL file, objects that have at least the keys `needs`; a torn last line, which a kill leaves, is dropped.

    Raises UserError for a damaged line with others after it.
    """
    if not path.exists():
        return []
    lines = [(number, line) for number, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    rows: list[dict[str, Any]] = []
    for number, line in lines:
        try:
            row = json.loads(line.decode())
            if not isinstance(row, dict) or any(name not in row for name in needs):
                raise ValueError(f"no object with {', '.join(needs)}" if needs else "no object")
        except (ValueError, RecursionError) as error:
            if number == lines[-1][0]:
                break
            raise UserError(
                f"{path} is damaged in line {number} ({error}), with {len(lines) - len(rows) - 1} lines after it: put the line right, or "
                "remove it to go on without what it told"
            ) from error
        rows.append(row)
    return rows


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write beside the file and rename, so that a reader sees the old file or the new one, never half of it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(partial, path)
