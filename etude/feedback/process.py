"""The parent's side of the verifiers' process: start it, write requests, read replies up to a deadline, kill it.

Both pipes are served by one `select`, so that neither side ever waits for the other to read; requests are queued far ahead of the replies.
"""

import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

START_SECONDS = 60.0
"""How long the process, or a verifier's imports, may take to load."""
_GUARD_SECONDS = 10.0
_AT_ONCE_BYTES = 1 << 16


class VerifierProcess:
    """The worker process with its two pipes, written and read without either side waiting for the other."""

    def __init__(self, memory_bytes: int, is_isolated: bool) -> None:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._scratch = tempfile.TemporaryDirectory(prefix="etude-verifiers-", ignore_cleanup_errors=True)
        scratch = os.path.realpath(self._scratch.name)
        arguments = [str(os.getpid()), str(limit), scratch, "isolated" if is_isolated else "open"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "etude.feedback.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            start_new_session=True,
            env={
                **os.environ,
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TMPDIR": scratch,
            },
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        self._unsent, self._unread = memoryview(b""), bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._is_writing = False
        first = self.receive(time.monotonic() + START_SECONDS) or {}
        self.closed: list[str] = first.get("closed", [])
        """What verifiers are kept from: files, network, processes."""
        if not first.get("ready"):
            problem = self._last_error()
            self.kill()
            raise RuntimeError(f"the verifiers' process does not start: {problem}")

    def is_alive(self) -> bool:
        """Whether it can take requests; to be asked when all replies have been read, since then only its end makes the pipe readable."""
        return self._process.poll() is None and not self._selector.select(0)

    def ending(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it broke its protocol"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def send(self, requests: Sequence[bytes]) -> None:
        """Queue requests; they are written while `receive` waits."""
        self._unsent = memoryview(b"".join(requests))
        self._write()

    def receive(self, deadline: float) -> dict[str, Any] | None:
        """The next reply, {} where the process is gone or speaks nonsense, None at the deadline (a time of `time.monotonic`)."""
        while (end := self._unread.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            for key, _ in self._selector.select(left):
                if key.fd == self._stdin:
                    self._write()
                elif data := os.read(self._stdout, 1 << 16):
                    self._unread += data
                else:
                    return {}
        line, self._unread = bytes(self._unread[:end]), self._unread[end + 1 :]
        try:
            reply = json.loads(line)
        except ValueError:
            return {}
        return reply if isinstance(reply, dict) else {}

    def end(self) -> None:
        """Ask it to end, from any thread; whoever waits for a reply is told that it is gone."""
        self._process.terminate()

    def kill(self) -> None:
        """End the worker with everything that it started, and wait until it is gone: the guard sees to it."""
        self._process.terminate()
        try:
            self._process.wait(timeout=_GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._scratch.cleanup()

    def _write(self) -> None:
        """Write what the pipe takes now, and watch it only while something is left."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._stdin, self._unsent[:_AT_ONCE_BYTES]) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent = memoryview(b"")  # reading tells how it ended
        if bool(self._unsent) != self._is_writing:
            self._is_writing = bool(self._unsent)
            (self._selector.register(self._stdin, selectors.EVENT_WRITE) if self._is_writing else self._selector.unregister(self._stdin))

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else self.ending()
