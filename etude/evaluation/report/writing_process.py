"""Whether the process that writes a run is there, by the run's `lock`, which is only read: a lock taken here could keep the run out."""

import os
import platform
import re
from pathlib import Path

from etude.evaluation.report.bounded_reading import read_bytes

_OPEN_FILES = "/proc/{}/fd"
_MAX_BYTES = 1000


def is_written(folder: Path) -> bool | None:
    """Tell whether the process named in the run's lock holds it open; None if that can't be seen, as of a run on another machine."""
    named = re.fullmatch(rb"process ([1-9]\d{0,9}) on (.*)", read_bytes(folder / "lock", [], most=_MAX_BYTES) or b"")
    if not named or named[2].decode(errors="replace") != platform.node():
        return None
    try:
        os.kill(int(named[1]), 0)  # signal 0 only asks whether there is such a process
        return _has_open(int(named[1]), folder / "lock")
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (PermissionError, OverflowError):  # it is somebody else's
        return None


def _has_open(process: int, path: Path) -> bool:
    """Tell whether a process has a file open: its number alone may be another's by now. True where there is no /proc."""
    if not os.path.exists(_OPEN_FILES.format("self")):
        return True
    own = path.stat()
    with os.scandir(_OPEN_FILES.format(process)) as entries:
        return any(os.path.samestat(own, found) for found in map(_opened, entries) if found)


def _opened(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return os.stat(entry.path)
    except FileNotFoundError:  # closed since
        return None
