"""The parent's side of the verifiers' processes: start them, load verifiers, send items, read replies by a deadline, end them."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
from shutil import rmtree
from typing import Any

from etude.errors import UserError
from etude.rewards.lines import GONE, Lines
from etude.rewards.reply import LONGEST_LINE_BYTES, BadReply, read_line

START_SECONDS = 60.0
"""Time limit for starting the process, and for a verifier's imports."""
_STOP_SECONDS = 10.0
"""Time limit for the worker to end its judge, before the worker itself is ended."""
_GUARD_SECONDS = 10.0
_PASSED_ON = frozenset(
    [
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "SSL_CERT_FILE"),
    ]
)
_PASSED_ON_BEGINNINGS = ("LC_", "PYTHON", "VERIFIER_")


class VerifierProcess:
    """The guard, its worker and the worker's judge (`etude.rewards.guard`), with a socket to each of the latter two.

    Raises UserError if it does not start.
    """

    def __init__(self, memory_bytes: int, is_isolated: bool) -> None:
        hard = getrlimit(RLIMIT_AS)[1]
        limit = memory_bytes if hard == RLIM_INFINITY else min(memory_bytes, hard)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        ours, theirs = socket.socketpair()
        self._control = Lines(ours, LONGEST_LINE_BYTES)
        self._link: Lines | None = None
        self._forks = True
        self._loaded: set[tuple[str, str]] = set()
        self._scratch = ""
        with theirs:
            self._process = subprocess.Popen(
                # -P: a file json.py in the current folder is not the json that the worker imports
                [sys.executable, "-P", "-m", "etude.rewards.guard", str(os.getpid()), str(limit), "isolated" if is_isolated else "open"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
                env=environment(is_isolated),
            )
        first = self._answer(START_SECONDS) or {}
        self.closed: list[str] = first.get("closed", [])
        """Blocked accesses of verifiers: files, network, processes."""
        self._scratch = first.get("scratch", "")
        if not first.get("ready"):
            problem = self._last_error()
            self.kill()
            raise UserError(
                f"the verifiers' process does not start: {problem}: it needs {sys.executable} with etude, a folder for temporary files "
                "that can be written to, and the right to start processes"
            )

    def is_alive(self) -> bool:
        """Return whether it can take requests; call it after all replies have been read."""
        return self._process.poll() is None and self._control.is_silent()

    def load(self, verifier: str, family: str = "", pickled: bytes | None = None) -> None:
        """Load a verifier, once; `pickled` is one that is a Python object. Raises UserError if it does not load."""
        if (verifier, family) in self._loaded:
            return
        self._leave_judge()
        told = {"load": verifier, "family": family} | ({"pickled": b64encode(pickled).decode()} if pickled else {})
        answer = self._asked(told, START_SECONDS)
        if answer is None:
            raise UserError(f"verifier {verifier!r} does not load: it took more than {START_SECONDS:g} s")
        if not answer.get("loaded"):
            said = answer.get("error")
            raise UserError(said if isinstance(said, str) else f"verifier {verifier!r} does not load: its process ended: {self.ending()}")
        self._loaded.add((verifier, family))

    def send(self, requests: Sequence[bytes]) -> bool:
        """Send items to the judge, starting one if needed; they are written while `receive` waits.

        Returns False if there is no judge: then this process must be killed.
        """
        if self._link is not None and not self._link.is_silent() and self.stop(is_gone=True) is None:  # it ended, or wrote unasked
            return False
        if self._link is None:
            ours, theirs = socket.socketpair()
            with theirs:
                answer = self._asked({"judge": True}, START_SECONDS, theirs)
            if not answer or not answer.get("judging"):
                ours.close()
                return False
            self._link, self._forks = Lines(ours, LONGEST_LINE_BYTES), answer.get("forks") is True
        self._link.send(b"".join(requests))
        return True

    def receive(self, deadline: float) -> bytes | None:
        """Return the judge's next line, GONE if it is gone, None at the deadline (a time of `time.monotonic`)."""
        return self._link.receive(deadline) if self._link else GONE

    def stop(self, *, is_gone: bool) -> str | None:
        """End the judge and all that it started, and describe how it ended; `is_gone` if it seems to have ended by itself.

        Returns None if this process cannot be used any more: then it must be killed.
        """
        if not self._forks:
            return None
        self._leave_judge()
        answer = self._asked({"stop": is_gone}, _STOP_SECONDS)
        ended = answer.get("ended") if answer else None
        return ended if isinstance(ended, str) else None

    def ending(self) -> str:
        """Describe how the process ended by itself."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "it broke its protocol"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def end(self) -> None:
        """Ask the process to end, from any thread; a caller waiting for a reply gets GONE."""
        self._process.terminate()

    def kill(self) -> None:
        """End everything below through the guard, and wait until it is gone."""
        self._leave_judge()
        self._process.terminate()
        try:
            self._process.wait(timeout=_GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._control.close()
        self._errors.close()
        if self._scratch and os.path.exists(self._scratch):  # the guard was killed
            with suppress(RecursionError):
                rmtree(self._scratch, ignore_errors=True)

    def _leave_judge(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _asked(self, command: dict[str, Any], seconds: float, passed: socket.socket | None = None) -> dict[str, Any] | None:
        """Send a command and return the worker's answer; {} if it is gone or the answer is invalid, None if it takes too long."""
        self._control.send(json.dumps(command).encode() + b"\n", passed)
        return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        line = self._control.receive(time.monotonic() + seconds)
        if line is None:
            return None
        try:
            return read_line(line)
        except BadReply:
            return {}

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else self.ending()


def environment(is_isolated: bool) -> dict[str, str]:
    """Return the environment variables for verifiers: isolated ones get those that programs need to run, and those that begin with
    VERIFIER_.

    API keys are left out: a verifier's text is written down and passed on.
    """
    passed = {
        name: value for name, value in os.environ.items() if not is_isolated or name in _PASSED_ON or name.startswith(_PASSED_ON_BEGINNINGS)
    }
    paths = os.pathsep.join(filter(None, sys.path))  # without "", the current folder
    return passed | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
