"""What the kernel keeps a verifier from, once it is asked to: Landlock for files and signals, seccomp for the network and the rest.

    files       nothing can be written, made, emptied or removed outside of a scratch folder, and of no file can mode, owner, times,
                attributes or flags be changed, in the scratch folder neither. Reading stays open, and so do locks on files (`flock`)
    network     no socket can be opened, Unix ones included
    processes   no signals to processes outside, no tracing of them, no changes to their limits and priorities; no user namespace, no shared
                memory and queues of System V or POSIX, no keyrings; root has no capability left but to read

Linux on x86-64 and arm64: `files` since 6.2 (Landlock 3), `network` since 3.5, `processes` since 6.12 (Landlock 6), elsewhere nothing.
Where a kernel or a container refuses a part, the others still hold, and `isolate` says which. It can't be undone within the process, and
holds for everything that it starts. Python's multiprocessing locks need shared memory, and do not work here. A program that a verifier
compiles is no executable, since the linker may not change its mode: copy it into a file that was made with one,
`os.open(name, os.O_CREAT | os.O_WRONLY, 0o755)`.

Processes of one Landlock domain are one flock: `kill_domain` ends all of them at once, also those that fork and exit by turns, since the
kernel sends a signal to "all" while nobody can fork, and the domain's scope keeps it within.
Sources: the kernel's userspace-api/landlock.rst and seccomp_filter.rst; kill(2).
"""

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

FILES, NETWORK, PROCESSES = "files", "network", "processes"
KINDS = (FILES, NETWORK, PROCESSES)

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _MOVE, _TRUNCATE, _IOCTL_DEV = 1 << 1, 1 << 13, 1 << 14, 1 << 15
_WRITES = {1: _WRITE_FILE | sum(1 << bit for bit in range(4, 13)), 2: _MOVE, 3: _TRUNCATE, 5: _IOCTL_DEV}
"""Rights to change files, by the version of Landlock that brought them: write; remove and make in folders; move; truncate; device calls."""
_EMPTIES_SINCE, _SCOPES_SINCE = 3, 6
"""Versions that know of emptying files, and of scopes."""
_SCOPES = (1 << 0) | (1 << 1)
"""Abstract Unix sockets and signals."""
_CAP_DAC_READ_SEARCH = 1 << 2
_RULE_PATH_BENEATH, _QUERY_VERSION = 1, 1

_ALLOW, _DENY, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32_CALLS = 0x40000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CALLS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "socket, io_uring_setup": ((41, 425), (198, 425)),
    "ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, process_madvise": ((101, 310, 311, 438, 440), (117, 270, 271, 438, 440)),
    "kcmp, migrate_pages, move_pages": ((312, 256, 279), (272, 238, 239)),
    "unshare, setns": ((272, 308), (97, 268)),
    "userfaultfd, bpf, perf_event_open, open_by_handle_at": ((323, 321, 298, 304), (282, 280, 241, 265)),
    "fchmod, fchmodat, fchmodat2": ((91, 268, 452), (52, 53, 452)),
    "fchown, fchownat": ((93, 260), (55, 54)),
    "utimensat": ((280,), (88,)),
    "chmod, chown, lchown, utime, utimes, futimesat": ((90, 92, 94, 132, 235, 261), ()),
    "setxattr, lsetxattr, fsetxattr, setxattrat": ((188, 189, 190, 463), (5, 6, 7, 463)),
    "removexattr, lremovexattr, fremovexattr, removexattrat": ((197, 198, 199, 466), (14, 15, 16, 466)),
    "file_setattr": ((469,), (469,)),
    "shmget, shmat, shmctl": ((29, 30, 31), (194, 196, 195)),
    "semget, semop, semctl, semtimedop": ((64, 65, 66, 220), (190, 193, 191, 192)),
    "msgget, msgsnd, msgrcv, msgctl": ((68, 69, 70, 71), (186, 189, 188, 187)),
    "mq_open, mq_unlink": ((240, 241), (180, 181)),
    "add_key, request_key, keyctl": ((248, 249, 250), (217, 218, 219)),
}
"""Calls that are refused, with their numbers on x86-64 and on arm64."""
_OF_A_PROCESS = {
    "x86_64": ((302, 0), (203, 0), (141, 1), (144, 0), (142, 0), (314, 0), (251, 1)),
    "aarch64": ((261, 0), (122, 0), (140, 1), (119, 0), (118, 0), (274, 0), (30, 1)),
}
"""prlimit64, sched_setaffinity, setpriority, sched_setscheduler, sched_setparam, sched_setattr, ioprio_set, and which argument names a
process: these are allowed for 0, the caller."""
_CLONE, _CLONE3, _IOCTL = {"x86_64": 56, "aarch64": 220}, 435, {"x86_64": 16, "aarch64": 29}
_NAMESPACES = 0x7E020000
"""The flags of `clone` that make namespaces. Those of `clone3` cannot be read by a filter: it is said to be unknown, and C libraries then
use `clone`."""
_REFUSED_IOCTLS = (0x40086602, 0x40046602, 0x401C5820, 0x5412)
"""FS_IOC_SETFLAGS with 64 and 32 bits, FS_IOC_FSSETXATTR, TIOCSTI."""

_is_confined = False
"""Whether signals of this process, or of the one that it is a fork of, were seen not to leave its Landlock domain."""


def isolate(scratch: str, outside: int) -> list[str]:
    """Close files (but `scratch`), network and processes to this process and to all that it starts; returns what is closed.

    `outside` is a process of the same user that stays outside: whether it can still be signalled tells whether the rest is shut in.
    """
    if not sys.platform.startswith("linux") or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    is_powerless = _drop_capabilities()
    version = landlock_version()
    has_landlock = bool(version) and _landlock(version, scratch)
    is_confined = has_landlock and version >= _SCOPES_SINCE and _sees_nothing_of(outside)
    machine = platform.machine()
    if machine not in _ARCHITECTURES or not _seccomp(machine):
        return []
    closed = [FILES] if has_landlock and version >= _EMPTIES_SINCE else []
    return [*closed, NETWORK, *([PROCESSES] if is_confined and is_powerless else [])]


def begin_domain(outside: int) -> bool:
    """Keep the signals of this process, and of all that it starts, within a Landlock domain of their own; False where no kernel does.

    `outside` is as for `isolate`.
    """
    if landlock_version() < _SCOPES_SINCE or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    ruleset = _libc.syscall(_CREATE_RULESET, struct.pack("=QQQ", _MOVE, 0, _SCOPES), 24, 0)
    if ruleset < 0:
        return False
    try:
        _allow(ruleset, "/", _MOVE)  # else it is denied in every domain, said or not
        is_done = _libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    except OSError:
        return False
    finally:
        os.close(ruleset)
    return is_done and _sees_nothing_of(outside)


def kill_domain() -> bool:
    """Kill every process of this process's Landlock domain but itself, at once; False, and nothing done, where it has none."""
    if not _is_confined:  # the signal would go to every process of the user
        return False
    with suppress(ProcessLookupError, PermissionError):  # nobody is there
        os.kill(-1, signal.SIGKILL)
    return True


def _sees_nothing_of(outside: int) -> bool:
    global _is_confined
    try:
        os.kill(outside, 0)
    except PermissionError:
        _is_confined = True
    except ProcessLookupError:  # it is gone, and nothing can be told
        pass
    return _is_confined


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 where it has none, or where it is off."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION)) if sys.platform.startswith("linux") else 0


def what_lacks(closed: Sequence[str]) -> str:
    """What of files, network and processes is not closed here and what that needs, in words; "" where nothing is left open."""
    missing = [kind for kind in KINDS if kind not in closed]
    if not missing:
        return ""
    needs = {
        FILES: f"Landlock {_EMPTIES_SINCE} of Linux 6.2",
        NETWORK: "seccomp on x86-64 or arm64",
        PROCESSES: f"Landlock {_SCOPES_SINCE} of Linux 6.12",
    }
    here = f"{platform.system()} {platform.release()} with Landlock {landlock_version() or 'off'}"
    return f"{', '.join(missing)} ({'; '.join(f'{kind}: {needs[kind]}' for kind in missing)}; here is {here})"


def _drop_capabilities() -> bool:
    """Give up the capabilities that root has, but for reading other users' files; True where no more than that is left."""
    get, put = {"x86_64": (125, 126), "aarch64": (90, 91)}.get(platform.machine(), (None, None))
    header, found = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0)), ctypes.create_string_buffer(24)
    if get is None or _libc.syscall(get, header, found):
        return False
    kept = struct.unpack("=6I", found.raw)[1] & _CAP_DAC_READ_SEARCH
    return _libc.syscall(put, header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) == 0


def _landlock(version: int, scratch: str) -> bool:
    changes = 0
    for since, rights in _WRITES.items():
        changes |= rights if version >= since else 0
    attributes = struct.pack("=QQQ", changes, 0, _SCOPES if version >= _SCOPES_SINCE else 0)
    size = 24 if version >= _SCOPES_SINCE else 16 if version >= 4 else 8
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0:
        return False
    try:
        on_files = changes & (_WRITE_FILE | _TRUNCATE | _IOCTL_DEV)
        for path, rights in [(scratch, changes), *((f"/dev/{name}", on_files) for name in ("null", "zero", "full", "random", "urandom"))]:
            with suppress(FileNotFoundError):
                _allow(ruleset, path, rights)
        return _libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    except OSError:
        return False
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0):
            raise OSError(ctypes.get_errno(), f"Landlock refuses {path}")
    finally:
        os.close(place)


def _seccomp(machine: str) -> bool:
    """Refuse the calls with EPERM; calls in the manner of another architecture end the process, since their numbers mean other things."""
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        steps += [(_JUMP_AT_LEAST, 0, 1, _X32_CALLS), (_RETURN, 0, 0, _KILL)]
    for numbers in _CALLS.values():
        for call in numbers[list(_ARCHITECTURES).index(machine)]:
            steps += [(_JUMP_EQUAL, 0, 1, call), (_RETURN, 0, 0, _DENY)]
    steps += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN)]
    steps += [(_JUMP_EQUAL, 0, 4, _CLONE[machine]), *_argument(0), (_JUMP_ANY_BIT, 0, 1, _NAMESPACES)]
    steps += [(_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _ALLOW)]
    for call, argument in _OF_A_PROCESS[machine]:
        steps += [(_JUMP_EQUAL, 0, 4, call), *_argument(argument), (_JUMP_EQUAL, 0, 1, 0)]
        steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    steps += [(_JUMP_EQUAL, 0, 2 + 2 * len(_REFUSED_IOCTLS), _IOCTL[machine]), *_argument(1)]
    for command in _REFUSED_IOCTLS:
        steps += [(_JUMP_EQUAL, 0, 1, command), (_RETURN, 0, 0, _DENY)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    holder = struct.pack("@HP", len(steps), ctypes.addressof(program))
    return _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, holder, 0, 0) == 0


def _argument(number: int) -> list[tuple[int, int, int, int]]:
    """Load the low half of an argument: process ids, the flags of `clone` and the commands of `ioctl` are 32 bits."""
    return [(_LOAD, 0, 0, 16 + 8 * number)]
