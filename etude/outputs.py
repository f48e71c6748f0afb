"""Output files of a command: a file, a device, a pipe, a link, or standard output.

-                  standard output
a device, a pipe   written into; it stays what it is (`/dev/null`, `/dev/fd/5`, `>(command)`, a FIFO)
a link             the file that it leads to is written, and the link stays
a regular file     replaced in one move, so that a reader sees either the whole old one or the whole new one

A regular file is replaced only if etude wrote it, which its content shows (`is_result`, `is_page`, `is_pack`), if it is empty, or with
`--force`. What can be checked is checked before the work, not after it.
"""

import json
import os
import re
import stat
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from etude.errors import UserError
from etude.files import write_atomically

STANDARD_OUTPUT = "-"
PAGE_MARK = '<meta name="generator" content="etude">'
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_NAMED = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_HEAD_BYTES = 65536
"""The beginning of a page, which has the mark."""

IsOwn = Callable[[Path], bool]


def check_output(option: str, name: str, is_own: IsOwn, *, force: bool = False) -> None:
    """Check that `name`, the value of `option`, can be written. Raises UserError if not, and for a file that etude did not write."""
    if _descriptor(name) is not None:
        return
    path = Path(name)
    label = f"{option} {name}"
    if path.is_dir():
        raise UserError(f"{label}: is a folder: name a file in it")
    if not path.exists() and not path.resolve().parent.is_dir():
        raise UserError(f"{label}: there is no folder {path.resolve().parent}: make it first, or name another file")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise UserError(f"{label}: no permission to write there: name another file")
    if force or not path.is_file() or path.stat().st_size == 0:
        return
    if not _is_own(path, is_own):
        raise UserError(f"{label}: exists already, and etude did not write it: name another file, or replace it with --force")


def write_output(name: str | Path, content: str | bytes) -> None:
    """Write the whole content to the file or stream that `name` stands for."""
    raw = content if isinstance(content, bytes) else content.encode("utf8", errors="replace")  # a lone surrogate becomes "?"
    descriptor = _descriptor(str(name))
    if descriptor == 1:
        sys.stdout.flush()
    if descriptor is not None:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(raw)
        return
    path = Path(name)
    if path.exists() and not path.is_file():
        try:
            with path.open("wb") as stream:
                stream.write(raw)
        except OSError as error:  # it has no file name, other than one on opening
            raise OSError(error.errno, error.strerror, str(path)) from error
        return

    target = path.resolve()
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    write_atomically(target, raw)
    if mode is not None:
        target.chmod(mode)


def is_standard_output(name: str | None) -> bool:
    """Return whether an output name stands for standard output."""
    return name is not None and _descriptor(name) == 1


def is_result(path: Path) -> bool:
    """Return whether a file is a `--json` result: a measurement, which names the `weights` it is of, or rows of answers."""
    found = json.loads(path.read_text(encoding="utf8"))
    if isinstance(found, list):
        return all(isinstance(row, dict) and row.keys() >= {"prompt", "completions"} for row in found)
    return isinstance(found, dict) and "weights" in found and bool(found.keys() & {"model", "recipe"})


def is_page(path: Path) -> bool:
    """Return whether a file is an HTML page of etude."""
    with path.open("rb") as file:
        return PAGE_MARK.encode() in file.read(_HEAD_BYTES)


def is_pack(path: Path) -> bool:
    """Return whether a file is a packed run."""
    with zipfile.ZipFile(path) as archive:
        return any(name.count("/") == 1 and name.endswith("/configuration.yaml") for name in archive.namelist())


def _is_own(path: Path, is_own: IsOwn) -> bool:
    with suppress(ValueError, OSError, RecursionError, zipfile.BadZipFile):  # unreadable as ours: another program's
        return is_own(path)
    return False


def _descriptor(name: str) -> int | None:
    """Return the file descriptor that a name stands for, or None."""
    if name == STANDARD_OUTPUT:
        return 1
    found = _DESCRIPTOR.fullmatch(name)
    return _NAMED.get(name, int(found[1]) if found else None)
