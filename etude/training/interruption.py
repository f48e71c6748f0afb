"""Let Ctrl-C and SIGTERM end a run only where nothing is half done.

    with Interruption() as interruption:
        sample()                          # a signal here raises Interrupted at once
        with interruption.whole():
            update()                      # here at the end of the block

A second signal, a second later or more, ends the run at once (the same request may come twice, to a process and to its group). Signals can
be caught only in a process's main thread; in others this does nothing.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SAME_REQUEST_SECONDS = 1.0

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised when a person or the machine ends the run; `note` says what is kept."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        self.exit_status = 128 + number
        self.note = ""
        super().__init__(self.name)


class Interruption:
    """A context manager that catches SIGINT and SIGTERM."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._is_acknowledged = False
        self._asked_at = 0.0
        self._whole = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Delay a first signal to the end of the block. Raises Interrupted there."""
        self._whole += 1
        try:
            yield
        finally:
            self._whole -= 1
        if self._asked is not None and not self._whole and not self._is_acknowledged:
            raise Interrupted(self._asked)

    def acknowledge(self) -> None:
        """Mark that the run is ending, so that the end of a `whole` block does not raise again."""
        self._is_acknowledged = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is not None and now - self._asked_at > _SAME_REQUEST_SECONDS:
            raise KeyboardInterrupt
        if self._asked is None:
            self._asked, self._asked_at = number, now
            if not self._whole:
                raise Interrupted(number)
