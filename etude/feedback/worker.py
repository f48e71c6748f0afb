"""The processes in which verifiers run, started by `etude.feedback.process`:

    python -m etude.feedback.worker PARENT_PID MEMORY_BYTES SCRATCH isolated|open

A guard and the worker, its child. The guard outlives whatever happens to the worker, ends as it ended, and kills everything that the worker
started when the worker ends or the run does, even by SIGKILL; then it removes SCRATCH, the folder for temporary files, the only one that
isolated verifiers may write to.

One JSON object per line. In: {"id", "text", "task"}. Out, in the same order: {"id", "verdict"}, or {"id", "error"} where a verifier raised.
{"ready": true, "closed": [...]} comes first and says what verifiers are kept from; {"loading": id} comes before a verifier is loaded for
the first time, so that imports are not charged to an item's time. The protocol has file descriptors of its own; what a verifier prints goes
nowhere and what it reads is empty.
"""

import ctypes
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from etude.feedback.isolation import isolate
from etude.orphans import die_with
from etude.tasks.functions import as_verdict
from etude.tasks.task import Task
from etude.tasks.verifiers import verifier_named

_PR_SET_CHILD_SUBREAPER = 36


def main(parent: int, memory_bytes: int, scratch: str, how: str) -> None:
    """Serve items until the parent closes the pipe."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    adopt_orphans()
    die_with(parent, signal.SIGTERM)
    guard = os.getpid()
    if worker := os.fork():
        return watch_over(worker, scratch)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with(guard, signal.SIGKILL)
    limit_memory(memory_bytes)
    requests, replies = own_pipes()
    serve(requests, replies, isolate(scratch) if how == "isolated" else [])


def watch_over(worker: int, scratch: str) -> None:
    """Wait for the worker, kill and bury what it left behind, whatever session that went to, and end as the worker did."""
    for descriptor in (0, 1):  # the pipes are the worker's: they must close when it ends
        os.close(descriptor)
    status, left = signal.SIGKILL.value, [worker]
    try:
        _, status = os.waitpid(worker, 0)
        left.clear()
    finally:  # also where SIGTERM asks for the end
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        with suppress(ChildProcessError):
            while True:
                for child in {*left, *children()}:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                os.waitpid(-1, 0)
        shutil.rmtree(scratch, ignore_errors=True)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def children() -> list[int]:
    """Processes whose parent is this one; those of a child that dies become its own. None are known where there is no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def limit_memory(memory_bytes: int) -> None:
    """Bound this process's address space, so that a verifier which allocates without end gets a MemoryError; 0 is no limit."""
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The protocol's two pipes, moved away from file descriptors 0 and 1, which user code may read and print to."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return requests, replies


def serve(requests: BinaryIO, replies: BinaryIO, closed: Sequence[str]) -> None:
    """Answer every line of `requests`; the replies are flushed when the verdict of an item is known."""

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message).encode() + b"\n")
        replies.flush()

    verifiers: dict[tuple[str, str], Any] = {}
    reply({"ready": True, "closed": list(closed)})
    for line in requests:
        item = json.loads(line)
        try:
            reply({"id": item["id"], "verdict": judge(item, verifiers, reply)})
        except BaseException as error:  # also SystemExit: whatever a verifier raises is about its item
            is_refused = bool(closed) and isinstance(error, PermissionError)
            hint = f" (verifiers are kept from {', '.join(closed)}: see isolate_verifiers)" if is_refused else ""
            reply({"id": item["id"], "error": f"{type(error).__name__}: {str(error)[:500]}{hint}"})


def judge(item: dict[str, Any], verifiers: dict[tuple[str, str], Any], reply: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The verdict on one item as JSON values."""
    prompt = item["task"]["prompt"]
    task = Task(**{**item["task"], "prompt": tuple(prompt) if isinstance(prompt, list) else prompt})
    key = (task.verifier, str(task.metadata.get("family", "")))
    if key not in verifiers:
        reply({"loading": item["id"]})
        verifiers[key] = load(task)
        reply({"loaded": item["id"]})
    verdict = as_verdict(verifiers[key](item["text"], task)).to_json()
    json.dumps(verdict)  # parts that are no JSON are the verifier's mistake, not the protocol's
    return verdict


def load(task: Task) -> Callable[[str, Task], Any]:
    """The task's verifier with everything that it imports."""
    verifier = verifier_named(task.verifier)
    if task.verifier in ("math", "reasoning_gym"):
        with suppress(Exception):  # an item of the same kind will raise it again, and be told of
            verifier(task.answer or "1", task)
    return verifier


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
