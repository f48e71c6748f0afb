"""What the kernel keeps a verifier from, once it is asked to: Landlock for files and signals, seccomp for the network and for sessions.

    files       nothing can be written, made or removed outside of a scratch folder; reading stays open, and so do modes and times
    network     no socket can be opened, Unix ones included
    processes   no new session or process group, so that whatever is started can be killed together; no signals to, and no tracing of,
                processes outside; no capabilities, not even root's

Linux on x86-64 and arm64. Where a kernel or a container refuses a part, the others still hold, and `isolate` says which. It can't be undone
within the process, and holds for everything that it starts. Sources: the kernel's userspace-api/landlock.rst and seccomp_filter.rst.
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
_SCOPES = (1 << 0) | (1 << 1)
"""Abstract Unix sockets and signals, since version 6."""
_RULE_PATH_BENEATH, _QUERY_VERSION = 1, 1

_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32_CALLS = 0x40000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NETWORK_CALLS = {"x86_64": (41, 425), "aarch64": (198, 425)}
"""socket, io_uring_setup."""
_PROCESS_CALLS = {"x86_64": (112, 109, 101, 310, 311, 272, 308), "aarch64": (157, 154, 117, 270, 271, 97, 268)}
"""setsid, setpgid, ptrace, process_vm_readv, process_vm_writev, unshare, setns."""


def isolate(scratch: str) -> list[str]:
    """Close files (but `scratch`), network and processes to this process and to all that it starts; returns what is closed."""
    if not sys.platform.startswith("linux") or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    has_no_capabilities = _drop_capabilities()
    version = max(0, _libc.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION))
    closed = [FILES] if version and _landlock(version, scratch) else []
    machine = platform.machine()
    if machine in _ARCHITECTURES and _seccomp(machine):
        closed.append(NETWORK)
        if version >= 6 and has_no_capabilities:
            closed.append(PROCESSES)
    return closed


def _drop_capabilities() -> bool:
    """Give up every capability, which only root has; True where none is left."""
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    call = {"x86_64": 126, "aarch64": 91}.get(platform.machine())
    return call is not None and _libc.syscall(call, header, none) == 0


def _landlock(version: int, scratch: str) -> bool:
    changes = 0
    for since, rights in _WRITES.items():
        changes |= rights if version >= since else 0
    attributes = struct.pack("=QQQ", changes, 0, _SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
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
    steps.append((_RETURN, 0, 0, _ALLOW))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    holder = struct.pack("@HP", len(steps), ctypes.addressof(program))
    return _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, holder, 0, 0) == 0
