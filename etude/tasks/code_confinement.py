"""Confine a process that runs a model's program: it may compute, and read Python's own library, and nothing else.

    seccomp     every system call is refused but those in `_CALLS`: no socket, no process (threads are allowed), no program, no signal, no
                change of a file, a mode or a limit; `open` only to read
    Landlock    no file can be read but Python's library and the system's (`_readable`); where it is off, reading stays possible
    limits      `limit_resources`. A limit on the number of processes means nothing for root, so the system calls refuse them instead

It cannot be undone within the process. Linux on x86-64 and arm64 only. `etude.rewards.isolation` isolates verifiers, which need more.
Sources: the kernel's seccomp_filter.rst and userspace-api/landlock.rst.
"""

import ctypes
import errno
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

MEMORY_BYTES = 512 << 20
FILE_BYTES = 1 << 20
"""How much a program can write into the files that it was given: its output and its reply."""
_OPEN_FILES = 32

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 4, 38, 22, 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _RULE_PATH_BENEATH = 444, 445, 446, 1
_QUERY_VERSION = 1
_READ_FILE, _READ_FOLDER, _ALL_RIGHTS = 1 << 2, 1 << 3, (1 << 13) - 1

_ALLOW, _DENY, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_LOAD, _JUMP_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CALLS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    "read, write, readv, writev, pread64, lseek, close": ((0, 1, 19, 20, 17, 8, 3), (63, 64, 65, 66, 67, 62, 57)),
    "fstat, newfstatat, statx, getcwd, getdents64": ((5, 262, 332, 79, 217), (80, 79, 291, 17, 61)),
    "readlinkat, faccessat, faccessat2": ((267, 269, 439), (78, 48, 439)),
    "stat, lstat, access, readlink, poll, select, pipe, dup2, pause, alarm, time, arch_prctl": (
        (4, 6, 21, 89, 7, 23, 22, 33, 34, 37, 201, 158),
        (),
    ),
    "mmap, mprotect, munmap, mremap, brk, madvise": ((9, 10, 11, 25, 12, 28), (222, 226, 215, 216, 214, 233)),
    "dup, dup3, pipe2, ppoll, pselect6, eventfd2": ((32, 292, 293, 271, 270, 290), (23, 24, 59, 73, 72, 19)),
    "futex, set_robust_list, set_tid_address, rseq, membarrier": ((202, 273, 218, 334, 324), (98, 99, 96, 293, 283)),
    "rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack": ((13, 14, 15, 131), (134, 135, 139, 132)),
    "setitimer, getitimer, restart_syscall, exit, exit_group": ((38, 36, 219, 60, 231), (103, 102, 128, 93, 94)),
    "clock_gettime, clock_getres, clock_nanosleep, nanosleep, gettimeofday": ((228, 229, 230, 35, 96), (113, 114, 115, 101, 169)),
    "getrandom, uname, sysinfo, getrusage, times": ((318, 63, 99, 98, 100), (278, 160, 179, 165, 153)),
    "sched_yield, sched_getaffinity": ((24, 204), (124, 123)),
    "getpid, gettid, getppid, getuid, geteuid, getgid, getegid": ((39, 186, 110, 102, 107, 104, 108), (172, 178, 173, 174, 175, 176, 177)),
}
"""Allowed system calls, with their numbers on x86-64 and on arm64."""
_OF_SUPERVISORS = {"x86_64": (61, 62, 434), "aarch64": (260, 129, 434)}
"""wait4, kill, pidfd_open."""
_OPENS = {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
"""open and openat, and the argument with their flags."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE, _CLONE3, _THREAD = {"x86_64": 56, "aarch64": 220}, 435, 0x00010000
_COMMANDS = {"x86_64": ((72, 1), (16, 1)), "aarch64": ((25, 1), (29, 1))}
"""fcntl and ioctl, and the argument with their command: some commands make the kernel send signals to any process of the user."""
_ALLOWED_COMMANDS = (0, 1, 2, 3, 4, 1030, 0x5401, 0x5450, 0x5451)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; TCGETS, FIONCLEX, FIOCLEX."""


def can_confine() -> bool:
    """Return whether this system can confine a program."""
    return sys.platform.startswith("linux") and platform.machine() in _ARCHITECTURES


def has_landlock() -> bool:
    """Return whether this kernel can keep a program from reading files."""
    return can_confine() and _libc.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION) > 0


def limit_resources(cpu_seconds: int) -> None:
    """Limit this process's memory, processor time, files and dumps."""
    limit_memory()
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)


def limit_memory() -> None:
    """Limit this process's address space, and have it leave no dump."""
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    _limit(resource.RLIMIT_CORE, 0)


def _limit(kind: int, most: int) -> None:
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def hide_memory() -> None:
    """Keep other processes of the user from reading this one's memory and open files through /proc."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine(*, supervises: bool = False) -> None:
    """Confine this process; one that `supervises` may also wait for processes and signal them. Raises OSError if the kernel refuses."""
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses to confine programs")
    _close_files()
    machine = platform.machine()
    steps = _steps(machine, _OF_SUPERVISORS[machine] if supervises else ())
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    holder = struct.pack("@HP", len(steps), ctypes.addressof(program))
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, holder, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel refuses to confine programs")


def _steps(machine: str, also: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Return the filter: calls of another architecture kill, since their numbers mean other things; x32 calls are no number of ours."""
    steps = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for call in [*(call for numbers in _CALLS.values() for call in numbers[list(_ARCHITECTURES).index(machine)]), *also]:
        steps += [(_JUMP_EQUAL, 0, 1, call), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_JUMP_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN)]  # its flags can't be read; C libraries then use clone
    steps += [(_JUMP_EQUAL, 0, 4, _CLONE[machine]), _argument(0), (_JUMP_ANY_BIT, 0, 1, _THREAD), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_RETURN, 0, 0, _DENY)]
    for call, flags in _OPENS[machine]:
        steps += [(_JUMP_EQUAL, 0, 4, call), _argument(flags), (_JUMP_ANY_BIT, 1, 0, _WRITING), (_RETURN, 0, 0, _ALLOW)]
        steps += [(_RETURN, 0, 0, _DENY)]
    for call, command in _COMMANDS[machine]:
        steps += [(_JUMP_EQUAL, 0, 2 + 2 * len(_ALLOWED_COMMANDS), call), _argument(command)]
        for allowed in _ALLOWED_COMMANDS:
            steps += [(_JUMP_EQUAL, 0, 1, allowed), (_RETURN, 0, 0, _ALLOW)]
        steps += [(_RETURN, 0, 0, _DENY)]
    return [*steps, (_RETURN, 0, 0, _DENY)]


def _argument(number: int) -> tuple[int, int, int, int]:
    """Return the step that loads the low half of an argument, all that these calls use."""
    return (_LOAD, 0, 0, 16 + 8 * number)


def _close_files() -> None:
    """Leave only the libraries readable, if Landlock is there."""
    ruleset = _libc.syscall(_CREATE_RULESET, struct.pack("=Q", _ALL_RIGHTS), 8, 0)
    if ruleset < 0:
        return
    for path in _readable():
        with suppress(OSError):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rights = _READ_FILE | _READ_FOLDER if os.path.isdir(path) else _READ_FILE
            _libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
            os.close(place)
    _libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _readable() -> list[str]:
    """Return what Python needs to import its own library."""
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime"]
    return [os.path.dirname(os.__file__), os.path.join(sys.base_prefix, "lib"), *system, "/dev/null", "/dev/urandom"]
