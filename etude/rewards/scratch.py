"""The folder for temporary files of isolated verifiers."""

import itertools
import os
from collections.abc import Collection
from contextlib import suppress


def empty(folder: str, kept: Collection[str] = ()) -> None:
    """Remove what is in a folder, but for the names in `kept`; what can't be removed stays.

    What lies deep is moved up before it is removed: a path may be longer than a call takes, and a folder deeper than Python recurses. For
    a process that may write nowhere else, or while nobody else writes there: links that appear in between are followed.
    """
    numbers = itertools.count()
    refused: set[str] = set(kept)
    while entries := [entry for entry in _entries(folder) if entry.name not in refused]:
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    with suppress(OSError):
                        os.chmod(entry.path, 0o700)
                    for inner in _entries(entry.path):
                        os.rename(inner.path, _free(folder, numbers))
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
            except OSError:
                refused.add(entry.name)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _free(folder: str, numbers: "itertools.count[int]") -> str:
    """A path in a folder that nothing stands at."""
    return next(path for number in numbers if not os.path.lexists(path := os.path.join(folder, f"moved-{number}")))
