"""The folder of compiled libraries: only what this user or root wrote is loaded from it, and only what is whole.

kernels/KEY-SUM.so   KEY names source, compiler and processor; SUM is the library's checksum

A library runs as whoever loads it, so the folder and the library must belong to this user or to root, and nobody else may write them; links
are not followed. The folder's mode does not depend on the umask. The checksum is of damage (a file that was cut loads as a crash), not
against forgery: who can write the folder can write a checksum.
"""

import hashlib
import os
import stat
from pathlib import Path

_SHOWN_BY_SUM = 32
"""Digits of the checksum in a name: 128 bits."""


def checked_folder(cache: Path) -> Path:
    """The folder of libraries in `cache`, made where it is not there. Raises PermissionError where another user could write what is in it,
    and OSError where nothing can be loaded from it.
    """
    cache.mkdir(mode=0o755, parents=True, exist_ok=True)
    cache = cache.resolve()
    folder = cache / "kernels"
    folder.mkdir(mode=0o755, exist_ok=True)
    above, found = cache.stat(), folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} is a link: remove it, or set ETUDE_CACHE to a folder of your own")
    for path, owned in ((cache, above), (folder, found)):
        if not _is_own(owned):
            raise PermissionError(f"{path} belongs to another user (uid {owned.st_uid}): set ETUDE_CACHE to a folder of your own")
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise PermissionError(f"others may rename what is in {cache}: chmod o-w {cache}")
    if found.st_mode & 0o022:
        if found.st_uid != os.geteuid():
            raise PermissionError(f"others may write {folder}: set ETUDE_CACHE to a folder of your own")
        folder.chmod(stat.S_IMODE(found.st_mode) & 0o755)  # what others put there before is not this user's, and not loaded
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise OSError(f"{folder} is mounted noexec: set ETUDE_CACHE to a folder from which programs can run")
    return folder


def whole(folder: Path, key: str) -> Path | None:
    """The library of this key that is this user's or root's and has its checksum; None where there is none."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        found = path.lstat()
        is_trusted = stat.S_ISREG(found.st_mode) and _is_own(found) and not found.st_mode & 0o022
        if is_trusted and path.name == _name(key, path):
            return path
    return None


def keep(linked: Path, folder: Path, key: str) -> None:
    """Put a library in its place by one rename, which takes a damaged one's."""
    linked.chmod(0o755)
    linked.replace(folder / _name(key, linked))


def _name(key: str, path: Path) -> str:
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:_SHOWN_BY_SUM]}.so"


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid in (os.geteuid(), 0)
