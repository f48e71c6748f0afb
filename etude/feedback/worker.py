"""The child process in which verifiers run: `python -m etude.feedback.worker PARENT_PID MEMORY_BYTES`, started by `etude.feedback.outcome`.

One JSON object per line. In: {"id", "text", "task"}. Out, in the same order: {"id", "verdict"}, or {"id", "error"} where a verifier raised.
{"ready": true} comes first, and {"loading": id} before a verifier is loaded for the first time, so that imports are not charged to an
item's time. The protocol has file descriptors of its own; what a verifier prints goes nowhere and what it reads is empty.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from etude.tasks.functions import as_verdict
from etude.tasks.task import Task
from etude.tasks.verifiers import verifier_named

_PR_SET_PDEATHSIG = 1


def main(parent: int, memory_bytes: int) -> None:
    """Serve items until the parent closes the pipe."""
    die_with(parent)
    limit_memory(memory_bytes)
    requests, replies = own_pipes()
    serve(requests, replies)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens; elsewhere than on Linux the closed pipe must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        sys.exit(0)


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


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer every line of `requests`; the replies are flushed when the verdict of an item is known."""

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message).encode() + b"\n")
        replies.flush()

    verifiers: dict[tuple[str, str], Any] = {}
    reply({"ready": True})
    for line in requests:
        item = json.loads(line)
        try:
            reply({"id": item["id"], "verdict": judge(item, verifiers, reply)})
        except BaseException as error:  # also SystemExit: whatever a verifier raises is about its item
            reply({"id": item["id"], "error": f"{type(error).__name__}: {str(error)[:500]}"})


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
    main(int(sys.argv[1]), int(sys.argv[2]))
