"""Processes that fork from one in which etude is imported: each begins at once, where a new interpreter takes seconds to import torch.

Where runs are compared, one of them is made by an interpreter of its own: it has other hashes of text than those that fork.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["etude.cli", "etude.recipes.practice"])
_BY_TURNS = threading.Lock()
"""Two threads that ask multiprocessing after one process at the same time may be told another exit code."""


class Forked:
    """`python -c CODE ARGUMENTS` in a session of its own."""

    def __init__(self, code: str, arguments: list[str], folder: Path) -> None:
        self._said = tempfile.TemporaryDirectory()
        self._process = _FORKS.Process(target=_run, args=(code, arguments, folder, Path(self._said.name)))
        with _BY_TURNS:
            self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, below 0 for a signal; None while it runs."""
        with _BY_TURNS:
            return self._process.exitcode

    def wait(self) -> subprocess.CompletedProcess:
        """How it ended and what it said."""
        while (code := self.poll()) is None:
            time.sleep(0.01)
        said = {path.name: path.read_text() for path in Path(self._said.name).iterdir()}
        return subprocess.CompletedProcess([], code, said.get("stdout", ""), said.get("stderr", ""))


def _run(code: str, arguments: list[str], folder: Path, said: Path) -> None:
    os.setsid()
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})
