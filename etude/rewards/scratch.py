"""Clean up the folder for temporary files of isolated verifiers."""

import itertools
import os
from collections.abc import Collection
from contextlib import suppress


def empty(folder: str, kept: Collection[str] = ()) -> None:
    """Remove what is in a folder, except the names in `kept`; what cannot be removed stays.

    Deep content is moved up before it is removed: a path may be longer than a system call accepts, and a folder deeper than Python can
    recurse. Use it only in a process that may write nowhere else, or while nobody else writes there: links that appear meanwhile are
    followed.
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
    """Return an unused path in a folder."""
    return next(path for number in numbers if not os.path.lexists(path := os.path.join(folder, f"moved-{number}")))
