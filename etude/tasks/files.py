"""Reads the rows of a file (JSONL, JSON array, CSV, TSV or Parquet), each with its origin (`train.jsonl:12`, `train.parquet[11]`)."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from etude.errors import UserError

csv.field_size_limit(sys.maxsize)  # a cell may hold a book

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MAX_DEPTH = 100
"""Maximum nesting of objects and lists in a row."""


def find_file(path: str, data: Path | None) -> Path:
    """Find a file by its path, or else in the folder of data sets.

    Raises UserError, with the nearest name, if there is no such file.
    """
    places = candidate_paths(path, data)
    for place in places:
        if place.is_file():
            return place
    folders = [place.parent for place in places if place.parent.is_dir()]
    names = sorted({other.name for folder in folders for other in folder.iterdir() if other.suffix in ENDINGS})
    near = get_close_matches(Path(path).name, names, n=1, cutoff=0.6)
    where = "" if Path(path).is_absolute() else " in the current folder" + (f" or in --data {data}" if data else "")
    fix = f"did you mean {near[0]!r}?" if near else "correct it" + ("" if data else ", or name the folder that holds it with --data")
    raise UserError(f"path {path!r} is not a file{where}: {fix}")


def candidate_paths(path: str, data: Path | None) -> list[Path]:
    """Return the paths where a file may be: as given, then in the folder of data sets."""
    return [Path(path)] if data is None or Path(path).is_absolute() else [Path(path), data / path]


def file_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every row of a file, with its origin.

    Raises UserError, which names the file and the line, for a broken line, a row that is not an object, names a column twice or is nested
    deeper than `MAX_DEPTH`, for an empty file and for another file ending.
    """
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix not in readers:
        raise UserError(f"{path.name} must end in one of {', '.join(readers)}")
    empty = True
    try:
        for origin, row in readers[path.suffix](path):
            if not isinstance(row, Mapping):
                raise UserError(f"{origin}: a row must be an object with named columns, got {type(row).__name__}")
            empty = False
            yield origin, row
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if empty:
        raise UserError(f"{path.name} has no rows")


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield f"{path.name}:{number}", read_json(line, f"{path.name}:{number}")


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        yield from _jsonl_rows(path)
        return
    rows = read_json(text, path.name) if text.strip() else []
    if not isinstance(rows, list):
        raise UserError(f"{path.name} must be a JSON array of objects, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        yield f"{path.name}[{index}]", row


def _csv_rows(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            if twice := _repeated(reader.fieldnames or ()):
                raise UserError(f"{path.name}:1: column {twice!r} is named twice: rename one")
            for row in reader:
                origin = f"{path.name}:{reader.line_num}"
                if None in row or None in row.values():
                    columns = len(reader.fieldnames or ())
                    got = columns + len(row[None]) if None in row else sum(value is not None for value in row.values())
                    raise UserError(f"{origin}: {got} values for {columns} columns ({', '.join(reader.fieldnames or ())})")
                yield origin, row
        except csv.Error as error:
            raise UserError(f"{path.name}:{reader.line_num}: {error}") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield f"{path.name}[{number}]", row
                number += 1
    except pyarrow.ArrowException as error:
        raise UserError(f"{path.name} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from error


def read_json(text: str, origin: str) -> Any:
    """Parse a JSON text.

    Raises UserError, which begins with `origin` and names the column, if the text is broken.
    """
    text = text.rstrip()  # so that a missing end is reported there and not in the next line
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = f" in line {error.lineno}" if "\n" in text else ""
        raise UserError(f"{origin}: not JSON{line}: {error.msg.removesuffix(' at')} at column {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: not JSON that can be read: {error}") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise UserError(f"{origin}: more than {MAX_DEPTH} objects and lists within each other: flatten the row")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(f"{_repeated(name for name, _ in pairs)!r} is given twice: give it once")
    return made


def _repeated(names: Iterable[str]) -> str | None:
    """Return the first repeated name, or None."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _is_deep(value: Any) -> bool:
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, Mapping) else each)
            if isinstance(inner, (Mapping, list))
        ]
        depth += 1
    return bool(level)
