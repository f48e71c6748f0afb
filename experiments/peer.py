"""A peer of a benchmark: a process in an environment of its own that answers requests, one at a time."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import UserError

_PEERS = Path(__file__).parents[1] / "bench" / "peers"


@dataclass(frozen=True)
class Peer:
    """A peer: its script, its environment, its variables."""

    script: str
    """Its file in `bench/peers`."""
    environment: str = ""
    """The folder of its environment in `bench/peers`, made by `make bench-peers`; empty: this one."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables beside those that every peer gets."""

    @property
    def _interpreter(self) -> Path:
        return _PEERS / self.environment / "bin" / "python" if self.environment else Path(sys.executable)

    @property
    def is_there(self) -> bool:
        """Return whether its environment was made."""
        return self._interpreter.exists()

    def python(self) -> str:
        if not self.is_there:
            raise UserError(f"the environment of {self.script} is not there: run `make bench-peers`, or leave the peer out with --peers")
        return str(self._interpreter)


class Running:
    """A started peer; ends with the `with` block."""

    def __init__(self, peer: Peer, settings: dict[str, Any]) -> None:
        self._log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed on exit
        environment = os.environ | {
            "OMP_NUM_THREADS": str(settings["threads"]),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **peer.variables,
        }
        command, self._script = [peer.python(), str(_PEERS / peer.script)], peer.script
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment, cwd=_PEERS.parents[1]
        )
        self.about = self.ask(settings)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise RuntimeError(f"{self._script} ended with {self._process.returncode}:\n{self._log.read()[-3000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                pipe.close()
        self._log.close()
