"""The guard of the verifiers' processes, which `etude.rewards.process` starts:

    python -P -m etude.rewards.guard PARENT_PID MEMORY_BYTES isolated|open      (standard input is a socket to the parent)

    parent (the run)
      guard               makes the scratch folder, outlives any failure below, ends when the parent ends, even by SIGKILL
        worker            `etude.rewards.worker`: isolated; loads verifiers and judges nothing itself
          judge           a fork of the worker: runs the verifiers on items, and is killed when one of them hangs

If Landlock allows it, each process is in its own domain within the one above, so that signals go down and never up: the guard kills
everything below with one signal that nobody escapes by forking. Otherwise the guard, which adopts orphans, kills its children until it has
none, and a process that forks faster than that escapes. The guard runs no verifier, and ends with the worker's exit status.
"""

import ctypes
import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from etude.processes import kill_with_parent
from etude.rewards.isolation import begin_domain, kill_domain
from etude.rewards.scratch import empty
from etude.rewards.worker import work

PREFIX = "etude-verifiers-"
SWEEP = signal.SIGUSR1
"""Asks the guard to kill its children except the worker."""
_PR_SET_CHILD_SUBREAPER = 36
_HEARD = {signal.SIGTERM, signal.SIGCHLD, SWEEP}


def main(parent: int, memory_bytes: int, how: str) -> None:
    """Start the worker, and stay until it or the parent ends."""
    signal.signal(signal.SIGCHLD, lambda *_: None)  # what is ignored, as by default, is heard of on no system but Linux
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)  # from here on signals wait until asked for: nothing is left half done
    adopt_orphans()
    kill_with_parent(parent, signal.SIGTERM)
    scratch = os.path.realpath(tempfile.mkdtemp(prefix=PREFIX))
    if how == "isolated":
        begin_domain(parent)
    guard = os.getpid()
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HEARD)
        kill_with_parent(guard, signal.SIGKILL)
        work(memory_bytes, scratch, guard if how == "isolated" else None)
        os._exit(0)
    status = watch_over(worker)
    empty(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
    end_like(status)


def watch_over(worker: int) -> int:
    """Wait for the end of the worker or for SIGTERM, then kill and reap all that is left; return the worker's status."""
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)  # the socket is the worker's: it must close when that ends
    status, is_sweeping = None, False
    while status is None:
        heard = signal.sigwait(_HEARD)
        if heard == signal.SIGTERM:
            break
        while (ended := _reap(os.WNOHANG))[0] > 0:
            status = ended[1] if ended[0] == worker else status
        is_sweeping = (is_sweeping or heard == SWEEP) and kill_children(but=worker)
    kill_domain()
    while True:
        if status is None:  # known even without /proc
            os.kill(worker, signal.SIGKILL)
        kill_children()
        pid, found = _reap(0)
        if pid < 0:
            return signal.SIGKILL.value if status is None else status
        status = found if pid == worker else status


def kill_children(but: int | None = None) -> bool:
    """Kill the child processes; return whether there were any, since their own children become ours."""
    found = [child for child in children() if child != but]
    for child in found:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(child, signal.SIGKILL)
    return bool(found)


def children() -> list[int]:
    """Return the ids of the child processes; a dead child's children become ours. Without /proc, return none."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    if lists:
        return [int(pid) for path in lists for pid in path.read_text().split()]
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (child subreaper), so that none escapes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_like(status: int) -> None:
    """End this process with the exit status of another."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _reap(options: int) -> tuple[int, int]:
    """Reap an ended child: its id and status; id 0 if none ended, -1 if there is none."""
    try:
        return os.waitpid(-1, options)
    except ChildProcessError:
        return -1, 0


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
