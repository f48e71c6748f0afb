"""Reads files of an untrusted run folder within bounds.

No special files are read, and no more bytes, longer lines or deeper values than runs write. Skipped content is recorded in `notes`, by the
file's name.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

MAX_BYTES = 64_000_000
"""Maximum size of a JSON document."""
MAX_STREAM_BYTES = 256_000_000
"""Maximum size of a file of lines, unpacked."""
MAX_LINE_BYTES = 4_000_000
MAX_DEPTH = 60
"""Maximum nesting of lists and mappings."""
_NOT_JSON = b"?"


def read_bytes(path: Path, notes: list[str], *, most: int | None = None) -> bytes | None:
    """Read a regular file; returns None if it is missing, not regular, or longer than `most` bytes (`MAX_BYTES`)."""
    most = MAX_BYTES if most is None else most
    if not _is_file(path, notes):
        return None
    try:
        with path.open("rb") as file:
            found = file.read(most + 1)
    except OSError as error:
        notes.append(f"{display_name(path)} is not readable ({error.strerror})")
        return None
    if len(found) > most:
        notes.append(f"{display_name(path)} is longer than {_megabytes(most)} and left out")
        return None
    return found


def read_lines(path: Path, notes: list[str]) -> Iterator[bytes]:
    """Yield the non-blank lines of a file (gzip by its name); a line that is too long becomes invalid JSON.

    A truncated gzip stream, or a file that is too long, ends after its readable part.
    """
    if not _is_file(path, notes):
        return
    left = MAX_STREAM_BYTES
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                left -= len(line)
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                while not line.endswith(b"\n") and left >= 0 and (more := file.readline(MAX_LINE_BYTES)):
                    left, line, is_whole = left - len(more), more, False
                if line.strip():
                    yield line if is_whole else _NOT_JSON
                if left < 0:
                    notes.append(f"{display_name(path)} is longer than {_megabytes(MAX_STREAM_BYTES)}: the rest is left out")
                    return
    except (EOFError, gzip.BadGzipFile, zlib.error):
        notes.append(f"{display_name(path)} breaks off")
    except OSError as error:
        notes.append(f"{display_name(path)} is not readable ({error.strerror})")


def parse_json(text: bytes) -> Any:
    """Parse a JSON text; integers of more than 20 digits become floats.

    Raises ValueError for invalid or too deeply nested JSON.
    """
    try:
        value = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 20 else float(digits))
    except RecursionError as error:
        raise ValueError("too deep") from error
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH:
        level = [value]
        for _ in range(MAX_DEPTH + 1):
            inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
            level = [*chain.from_iterable(inner)]
        if level:
            raise ValueError("too deep")
    return value


def display_name(path: Path) -> str:
    """Return the file's name as in the run folder's layout."""
    return f"{path.parent.name}/{path.name}" if path.parent.name in ("attempts", "trees", "evaluation", "model") else path.name


def _is_file(path: Path, notes: list[str]) -> bool:
    """Tell whether a path is a regular file, or a link to one: reading a pipe would block, a device has no end."""
    if not path.is_file():
        notes.append(f"{display_name(path)} is {'no file' if path.exists() else 'missing'}")
        return False
    return True


def _megabytes(number: int) -> str:
    return f"{number / 1e6:g} MB"
