"""Isolate a verifier with the kernel's means: Landlock for files and signals, seccomp for the network and other system calls.

    files       nothing can be written, made, truncated or removed outside of a scratch folder, and no file's mode, owner, times,
                attributes or flags can be changed, not even in the scratch folder. Reading and file locks (`flock`) stay possible
    network     no socket can be opened, Unix sockets included
    processes   no signals to processes outside, no tracing of them, no changes to their limits and priorities; no user namespace, no shared
                memory and queues of System V or POSIX, no keyrings; root keeps no capability but to read

Linux on x86-64 and arm64: `files` since 6.2 (Landlock 3), `network` since 3.5, `processes` since 6.12 (Landlock 6); other systems: nothing.
If a kernel or a container refuses a part, the others still hold, and `isolate` reports which. It cannot be undone within the process, and
applies to everything that it starts. Python's multiprocessing locks need shared memory, and do not work here. A program that a verifier
compiles is not executable, since the linker may not change its mode: copy it into a file that was made executable, `os.open(name,
os.O_CREAT | os.O_WRONLY, 0o755)`.

`kill_domain` ends all processes of one Landlock domain at once, even those that fork and exit in turns: the kernel sends a signal to "all"
while nobody can fork, and the domain's scope limits it to the domain. Sources: the kernel's userspace-api/landlock.rst and
seccomp_filter.rst; kill(2).
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
"""Rights to change files, by the Landlock version that added them: write; remove and make in folders; move; truncate; device calls."""
_EMPTIES_SINCE, _SCOPES_SINCE = 3, 6
"""Landlock versions that support truncation, and scopes."""
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
"""Refused system calls, with their numbers on x86-64 and on arm64."""
_OF_A_PROCESS = {
    "x86_64": ((302, 0), (203, 0), (141, 1), (144, 0), (142, 0), (314, 0), (251, 1)),
    "aarch64": ((261, 0), (122, 0), (140, 1), (119, 0), (118, 0), (274, 0), (30, 1)),
}
"""prlimit64, sched_setaffinity, setpriority, sched_setscheduler, sched_setparam, sched_setattr, ioprio_set, and the argument that names a
process: they are allowed for 0, the caller."""
_CLONE, _CLONE3, _IOCTL = {"x86_64": 56, "aarch64": 220}, 435, {"x86_64": 16, "aarch64": 29}
_NAMESPACES = 0x7E020000
"""The flags of `clone` that make namespaces. A filter cannot read those of `clone3`, so `clone3` is reported as unknown, and C libraries
then use `clone`."""
_REFUSED_IOCTLS = (0x40086602, 0x40046602, 0x401C5820, 0x5412)
"""FS_IOC_SETFLAGS with 64 and 32 bits, FS_IOC_FSSETXATTR, TIOCSTI."""

_is_confined = False
"""Whether signals of this process, or of its parent before a fork, were seen not to leave its Landlock domain."""


def isolate(scratch: str, outside: int) -> list[str]:
    """Block files (except `scratch`), network and processes for this process and all that it starts; return what is blocked.

    `outside` is a process of the same user outside the domain: whether it can still be signalled shows whether the confinement works.
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
    """Confine the signals of this process, and of all that it starts, to a new Landlock domain; return False if the kernel cannot.

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
    """Kill every other process of this process's Landlock domain at once; return False, doing nothing, without a domain."""
    if not _is_confined:  # the signal would go to every process of the user
        return False
    with suppress(ProcessLookupError, PermissionError):  # no other process is there
        os.kill(-1, signal.SIGKILL)
    return True


def _sees_nothing_of(outside: int) -> bool:
    global _is_confined
    try:
        os.kill(outside, 0)
    except PermissionError:
        _is_confined = True
    except ProcessLookupError:  # it is gone, and nothing can be concluded
        pass
    return _is_confined


def landlock_version() -> int:
    """Return the kernel's Landlock version; 0 if it has none or it is off."""
    return max(0, _libc.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION)) if sys.platform.startswith("linux") else 0


def what_lacks(closed: Sequence[str]) -> str:
    """Describe which of files, network and processes are not blocked here, and what that needs; "" if all are blocked."""
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
    """Drop root's capabilities except reading other users' files; return whether no more than that is left."""
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
    """Refuse the system calls with EPERM; calls of another architecture kill the process, since their numbers mean other things."""
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
    """Return the steps that load the low half of an argument: process ids, flags of `clone` and commands of `ioctl` have 32 bits."""
    return [(_LOAD, 0, 0, 16 + 8 * number)]
