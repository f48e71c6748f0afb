"""The worker process that loads verifiers, and the judges that it forks (`etude.rewards.guard` describes all processes).

The worker isolates itself, loads the verifiers that it is asked to load, and waits. To judge, it gets a socket and forks: the judge has
everything that was loaded, and when an item hangs or kills it, the next judge costs a fork and no new imports. If a fork would not have all
that was loaded (a verifier's file has started threads or processes, or the system is not Linux) the worker judges itself.

On the worker's socket, a JSON object per line:

    {"ready": true, "closed": [...], "scratch": ...}    comes first, and lists what is blocked for verifiers
    {"load": NAME, "family": ..., "pickled": ...}       {"loaded": true} or {"error": a sentence}; `pickled` if it is a Python object
    {"judge": true}, with a socket                      {"judging": true, "forks": whether a fork judges}
    {"stop": whether it is gone already}                {"ended": how}: the judge and all that it started are dead, its files removed

On a judge's socket: in {"id", "texts", "task"}, out in the same order {"id", "rewards"}, or {"id", "error"} if a verifier raised. A
verifier's output is discarded and its input is empty. After each item the folder for temporary files is emptied, except for what was there
when the verifier had been loaded. The parent checks everything that is written here before it uses it (`etude.rewards.reply`).
"""

import gc
import json
import os
import pickle
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from etude.errors import UserError
from etude.processes import kill_with_parent
from etude.rewards.isolation import begin_domain, isolate, kill_domain
from etude.rewards.reply import LONGEST_LINE_BYTES, LONGEST_MESSAGE
from etude.rewards.scratch import empty
from etude.tasks.expressions import math
from etude.tasks.family_scores import load_scorer
from etude.tasks.feedback import shortened
from etude.tasks.functions import to_reward
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.tasks.verifiers import find_verifier

Judge = Callable[[Sequence[str], Task], Sequence[Reward]]
"""A loaded verifier: the texts of one task -> their rewards."""

_ENDING_SECONDS = 1.0
"""Time limit for a judge that closed its socket to end."""
_PASSED = socket.MSG_CMSG_CLOEXEC if hasattr(socket, "MSG_CMSG_CLOEXEC") else 0


def work(memory_bytes: int, scratch: str, guard: int | None) -> None:
    """Obey the parent's commands until it closes the socket; isolated if there is a `guard`."""
    control = move_socket()
    limit_memory(memory_bytes)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    worker = Worker(scratch, [] if guard is None else isolate(scratch, guard))
    say(control, {"ready": True, "closed": worker.closed, "scratch": scratch})
    unread = b""
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 12, 1, _PASSED)
        unread += data
        if not data:
            return
        if unread.endswith(b"\n"):
            answer = worker.answer(json.loads(unread), descriptors[0] if descriptors else None, control)
            unread = b""
            if answer:
                say(control, answer)


def move_socket() -> socket.socket:
    """Move the socket to the parent away from file descriptor 0, since user code reads and prints at 0, 1 and 2."""
    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    return control


def limit_memory(memory_bytes: int) -> None:
    """Limit this process's address space, so that a verifier that allocates without end gets a MemoryError; 0 is no limit."""
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def say(to: socket.socket, message: dict[str, Any]) -> None:
    """Send a message as one line of JSON."""
    to.sendall(json.dumps(message).encode() + b"\n")


class Worker:
    """The loaded verifiers, and the judge that runs them."""

    def __init__(self, scratch: str, closed: Sequence[str]) -> None:
        self.scratch, self.closed = scratch, list(closed)
        self._verifiers: dict[str, Judge] = {}
        self._kept: list[str] = []
        self._judge: int | None = None

    def answer(self, command: dict[str, Any], descriptor: int | None, control: socket.socket) -> dict[str, Any] | None:
        """Carry out a command of the parent."""
        if "load" in command:
            return self.load(command["load"], command["family"], command.get("pickled"))
        if "stop" in command:
            return {"ended": self.stop(is_gone=command["stop"])}
        assert descriptor is not None
        self.judge(socket.socket(fileno=descriptor), control)
        return None

    def load(self, name: str, family: str, pickled: str | None) -> dict[str, Any]:
        """Load a verifier with its imports, so that items are not charged for them; this ends the judge, which lacks it."""
        self.stop(is_gone=False)
        try:
            self._verifiers[name] = pickle.loads(b64decode(pickled)).rewards if pickled else _of_each(find_verifier(name))
            if name == "math":
                math("$x + 1$", Task("", "1 + x", "math"))
            elif name == "reasoning_gym":
                load_scorer(family)
        except UserError as error:
            return {"error": shortened(f"{error}{hint(error.__cause__, self.closed)}", LONGEST_MESSAGE)}
        except BaseException as error:  # also SystemExit
            if ":" in name:
                return {"error": shortened(f"verifier {name!r} does not load: {type(error).__name__}: {error}", LONGEST_MESSAGE)}
            # an item of the same kind will raise it again, and the item reports it
        self._kept = os.listdir(self.scratch)
        return {"loaded": True}

    def judge(self, link: socket.socket, control: socket.socket) -> None:
        """Start a judge that answers the items on `link`: a fork, or else this process, until the link closes."""
        with link:
            if not can_fork():
                say(control, {"judging": True, "forks": False})
                return judge_items(link, self._verifiers, self.closed, self.scratch, self._kept)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel buries the judge
            gc.freeze()  # a collection would write to every object, and so copy the memory that is shared
            worker = os.getpid()
            self._judge = os.fork()
            if self._judge:
                return say(control, {"judging": True, "forks": True})
            try:
                control.close()
                os.setpgid(0, 0)  # what it sends to "its group" is for it and its own
                kill_with_parent(worker, signal.SIGKILL)
                if self.closed:
                    begin_domain(worker)
                judge_items(link, self._verifiers, self.closed, self.scratch, self._kept)
            finally:
                os._exit(0)

    def stop(self, *, is_gone: bool) -> str:
        """Kill the judge and all that it started, and empty the scratch folder; return how the judge ended."""
        status, deadline = None, time.monotonic() + _ENDING_SECONDS
        if self._judge is None:
            return ""
        while is_gone and status is None and time.monotonic() < deadline:
            pid, found = os.waitpid(self._judge, os.WNOHANG)
            status = found if pid else None
            time.sleep(0.0 if pid else 0.001)
        is_swept = kill_domain()
        if status is None:
            os.kill(self._judge, signal.SIGKILL)
            os.waitpid(self._judge, 0)
        self._judge = None
        if not is_swept:
            os.kill(os.getppid(), signal.SIGUSR1)
        empty(self.scratch, self._kept)
        if status is None:
            return "it broke its protocol"
        code = os.waitstatus_to_exitcode(status)
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def can_fork() -> bool:
    """Return whether a fork of this process would be complete: Linux, no threads and no children."""
    if sys.platform != "linux" or threading.active_count() > 1:
        return False
    with suppress(FileNotFoundError):
        if len(os.listdir("/proc/self/task")) > 1:
            return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False


def judge_items(
    link: socket.socket,
    verifiers: dict[str, Judge],
    closed: Sequence[str],
    scratch: str,
    kept: list[str],
) -> None:
    """Answer every line on `link`."""
    judge = os.getpid()
    with link.makefile("rb") as requests:
        for line in requests:
            item = json.loads(line)
            try:
                reply = _encoded({"id": item["id"], "rewards": _rewards(item, verifiers)})
            except BaseException as error:  # also SystemExit: whatever a verifier raises is about its item
                reply = _encoded({"id": item["id"], "error": f"{type(error).__name__}: {str(error)[:500]}{hint(error, closed)}"})
            if os.getpid() != judge:  # a fork of the verifier's that returned here
                os._exit(0)
            if ":" in item["task"]["verifier"] and os.listdir(scratch) != kept:
                empty(scratch, kept)
            link.sendall(reply)


def hint(error: BaseException | None, closed: Sequence[str]) -> str:
    """Return a hint that the isolation may have refused something to a verifier; "" if it did not."""
    is_refused = bool(closed) and isinstance(error, PermissionError)
    return f" (verifiers are kept from {', '.join(closed)}: see isolate_verifiers)" if is_refused else ""


def _of_each(verifier: Callable[[str, Task], Any]) -> Judge:
    """Return a function that judges every text by itself."""
    return lambda texts, task: [to_reward(verifier(text, task)) for text in texts]


def _rewards(item: dict[str, Any], verifiers: dict[str, Judge]) -> list[dict[str, Any]]:
    """Compute the rewards on the texts of an item as JSON values."""
    prompt = item["task"]["prompt"]
    task = Task(**{**item["task"], "prompt": tuple(prompt) if isinstance(prompt, list) else prompt})
    found = [reward.to_json() for reward in verifiers[task.verifier](item["texts"], task)]
    longest = LONGEST_MESSAGE // len(found)
    return [each | {name: shortened(each[name], longest) for name in ("message", "words") if name in each} for each in found]


def _encoded(reply: dict[str, Any]) -> bytes:
    """Encode a reply as a line. Raises ValueError if it is too long, and TypeError for parts that are not JSON: the verifier's mistakes."""
    line = json.dumps(reply).encode() + b"\n"
    if len(line) > LONGEST_LINE_BYTES:
        raise ValueError(f"a reward has at most {LONGEST_LINE_BYTES} bytes, got {len(line)}")
    return line
