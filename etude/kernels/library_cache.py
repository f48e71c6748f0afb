"""The folder of compiled libraries: only undamaged files of this user or root are loaded from it.

kernels/KEY-SUM.so   KEY names source, compiler and processor; SUM is the library's checksum

A library runs with the rights of the user who loads it, so the folder and the library must belong to this user or to root, and must not be
writable by others. Links are not followed. The folder's mode does not depend on the umask. The checksum detects damage (loading a truncated
file crashes), not forgery: a user who can write the folder can write a checksum.
"""

import hashlib
import os
import stat
from pathlib import Path

_SHOWN_BY_SUM = 32
"""Number of digits of the checksum in a name: 128 bits."""


def checked_folder(cache: Path) -> Path:
    """Return the folder of libraries in `cache`, which is created if missing. Raises PermissionError if another user could write into it,
    and OSError if nothing can be loaded from it.
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
        folder.chmod(stat.S_IMODE(found.st_mode) & 0o755)  # earlier files of other users are not loaded
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise OSError(f"{folder} is mounted noexec: set ETUDE_CACHE to a folder from which programs can run")
    return folder


def find_library(folder: Path, key: str) -> Path | None:
    """Find the library of this key that belongs to this user or root and has a correct checksum; returns None if there is none."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        found = path.lstat()
        is_trusted = stat.S_ISREG(found.st_mode) and _is_own(found) and not found.st_mode & 0o022
        if is_trusted and path.name == _name(key, path):
            return path
    return None


def store_library(linked: Path, folder: Path, key: str) -> None:
    """Move a library into the folder by one rename, which replaces a damaged one."""
    linked.chmod(0o755)
    linked.replace(folder / _name(key, linked))


def _name(key: str, path: Path) -> str:
    return f"{key}-{hashlib.sha256(path.read_bytes()).hexdigest()[:_SHOWN_BY_SUM]}.so"


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid in (os.geteuid(), 0)
