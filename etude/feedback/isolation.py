"""What the kernel keeps a verifier from, once it is asked to: Landlock for files and signals, seccomp for the network and the rest.

    files       nothing can be written, made, emptied or removed outside of a scratch folder; reading stays open, and so do modes and times
    network     no socket can be opened, Unix ones included
    processes   no signals to processes outside, no tracing of them, no changes to their limits and priorities; root has no capability left
                but to read

Linux on x86-64 and arm64. Where a kernel or a container refuses a part, the others still hold, and `isolate` says which. It can't be undone
within the process, and holds for everything that it starts. Shared memory is closed too, which Python's multiprocessing locks need.
Sources: the kernel's userspace-api/landlock.rst and seccomp_filter.rst.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from contextlib import suppress

FILES, NETWORK, PROCESSES = "files", "network", "processes"

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _TRUNCATE, _IOCTL_DEV = 1 << 1, 1 << 14, 1 << 15
_WRITES = {1: _WRITE_FILE | sum(1 << bit for bit in range(4, 13)), 2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEV}
"""Rights to change files, by the version of Landlock that brought them: write; remove and make in folders; move; truncate; device calls."""
_EMPTIES_SINCE, _SCOPES_SINCE = 3, 6
"""Versions that know of emptying files, and of scopes."""
_SCOPES = (1 << 0) | (1 << 1)
"""Abstract Unix sockets and signals."""
_CAP_DAC_READ_SEARCH = 1 << 2
_RULE_PATH_BENEATH, _QUERY_VERSION = 1, 1

_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32_CALLS = 0x40000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NETWORK_CALLS = {"x86_64": (41, 425), "aarch64": (198, 425)}
"""socket, io_uring_setup."""
_PROCESS_CALLS = {"x86_64": (101, 310, 311, 438, 272, 308), "aarch64": (117, 270, 271, 438, 97, 268)}
"""ptrace, process_vm_readv, process_vm_writev, pidfd_getfd, unshare, setns."""
_OF_A_PROCESS = {
    "x86_64": ((302, 0), (203, 0), (141, 1), (144, 0), (142, 0), (314, 0), (251, 1)),
    "aarch64": ((261, 0), (122, 0), (140, 1), (119, 0), (118, 0), (274, 0), (30, 1)),
}
"""prlimit64, sched_setaffinity, setpriority, sched_setscheduler, sched_setparam, sched_setattr, ioprio_set, and which argument names a
process: these are allowed for 0, the caller."""


def isolate(scratch: str) -> list[str]:
    """Close files (but `scratch`), network and processes to this process and to all that it starts; returns what is closed."""
    if not sys.platform.startswith("linux") or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    is_powerless = _drop_capabilities()
    version = max(0, _libc.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION))
    closed = [FILES] if version and _landlock(version, scratch) and version >= _EMPTIES_SINCE else []
    machine = platform.machine()
    if machine in _ARCHITECTURES and _seccomp(machine):
        closed.append(NETWORK)
        if version >= _SCOPES_SINCE and is_powerless:
            closed.append(PROCESSES)
    return closed


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
    refused = (*_NETWORK_CALLS[machine], *_PROCESS_CALLS[machine])
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        steps += [(_JUMP_AT_LEAST, 0, 1, _X32_CALLS), (_RETURN, 0, 0, _KILL)]
    for call in refused:
        steps += [(_JUMP_EQUAL, 0, 1, call), (_RETURN, 0, 0, _DENY)]
    for call, argument in _OF_A_PROCESS[machine]:  # the low half of an argument: a process id is 32 bits
        steps += [(_JUMP_EQUAL, 0, 4, call), (_LOAD, 0, 0, 16 + 8 * argument), (_JUMP_EQUAL, 0, 1, 0)]
        steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    holder = struct.pack("@HP", len(steps), ctypes.addressof(program))
    return _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, holder, 0, 0) == 0
