"""A peer whose library runs the loop itself: the loop goes on in a thread, and waits at places of its own for what it is asked."""

import queue
import threading
from collections.abc import Callable
from typing import Any

Line = dict[str, Any]


class Waiting:
    """Two threads that take turns: one answers requests, the other one works between `wait` and `say`."""

    def __init__(self) -> None:
        self._asked: queue.Queue[Line] = queue.Queue()
        self._said: queue.Queue[Line] = queue.Queue()

    def begin(self, work: Callable[[], object]) -> None:
        """Start the thread that works; the next `answer` after its end raises how it ended."""

        def run() -> None:
            try:
                work()
                self.say({"error": "there is no more to do"})
            except BaseException as error:
                self.say({"error": repr(error)})
                raise

        threading.Thread(target=run, daemon=True).start()

    def answer(self, request: Line) -> Line:
        """Hand a request to the thread that works and return what it says."""
        self._asked.put(request)
        found = self._said.get()
        if "error" in found:
            raise RuntimeError(found["error"])
        return found

    def wait(self) -> Line:
        """In the thread that works: the next request."""
        return self._asked.get()

    def say(self, line: Line) -> None:
        """In the thread that works: what is answered."""
        self._said.put(line)
