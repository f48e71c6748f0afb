"""The engine's thread: requests that are decoded together and join at any token, and jobs that run alone between two tokens.

Requests wait in order. A job (a method of decoding, a cache policy, the log-probs of a prompt) holds the batch up while it runs.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from etude.engine.continuous import ContinuousBatch, Receiver, Request
from etude.engine.protocols import PrefixEngine
from etude.serve.protocol import Refused

Found = TypeVar("Found")


class Closed(Exception):
    """The server is shutting down."""


class Scheduler:
    """The thread that owns the engine. `submit`, `run` and `close` may be called from any thread."""

    def __init__(self, engine: PrefixEngine, batch: ContinuousBatch | None, *, max_waiting: int) -> None:
        """Start the thread. Without a `batch` every request is a job of its own."""
        self.engine, self.batch, self.max_waiting = engine, batch, max_waiting
        self._waiting: deque[Request] = deque()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._is_closing = self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """The number of samples that are decoded."""
        return len(self.batch) if self.batch else 0

    @property
    def waiting(self) -> int:
        """The number of requests and jobs that wait."""
        return len(self._waiting) + len(self._jobs)

    def submit(self, request: Request) -> None:
        """Queue a request. Raises Refused if too many wait."""
        if self.batch is None:
            self.run(lambda: self._run_alone(request), request.receiver)
            return
        with self._changed:
            self._check_room()
            self._waiting.append(request)
            self._changed.notify()

    def run(self, job: Callable[[], Found], receiver: Receiver | None = None) -> "Future[Found]":
        """Queue a function that uses the engine; a `receiver` is told if it fails. Raises Refused if too many wait."""
        future: Future[Found] = Future()
        if receiver is not None:
            future.add_done_callback(partial(_tell_failure, receiver))
        with self._changed:
            self._check_room()
            self._jobs.append((job, future))
            self._changed.notify()
        return future

    def close(self, grace_seconds: float = 0.0) -> None:
        """Take no more requests, wait for the others as long as `grace_seconds`, then end them and the thread."""
        with self._changed:
            self._is_closing = True
        deadline = time.monotonic() + grace_seconds
        while (self.running or self.waiting) and time.monotonic() < deadline:
            time.sleep(0.05)
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _check_room(self) -> None:
        if self._is_closing:
            raise Refused("the server is shutting down", status=503)
        if self.waiting >= self.max_waiting:
            raise Refused(f"{self.max_waiting} requests wait already: try again later", status=429)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._waiting or self._jobs or self.running)
                if self._is_closed:
                    return self._end()
                job = self._jobs.popleft() if self._jobs else None
                joining = self._joining()
            if job:
                _run(*job)
            if self.batch is not None:
                self._advance(self.batch, joining)

    def _joining(self) -> list[Request]:
        """Take the waiting requests that fit into the batch, in order; cancelled ones are ended."""
        found: list[Request] = []
        while self._waiting and self.batch is not None:
            request = self._waiting[0]
            if request.is_cancelled:
                for sample in range(len(request.keys)):
                    request.receiver.end(sample, "", "cancelled", 0)
            elif self.batch.has_room([*found, request]):
                found.append(request)
            else:
                break
            self._waiting.popleft()
        return found

    def _advance(self, batch: ContinuousBatch, joining: list[Request]) -> None:
        """Compute the prompts of joining requests and the next token of all."""
        try:
            if joining:
                batch.admit(joining)
        except Exception as error:  # memory, a token that the model does not have: of these requests
            for request in joining:
                request.receiver.fail(error)
        try:
            if len(batch):
                batch.step()
        except Exception as error:
            batch.fail(error)

    def _run_alone(self, request: Request) -> None:
        """Answer a request by itself, for models whose batches can't be joined."""
        how: dict[str, Any] = {"max_new_tokens": request.max_new_tokens, "sampling": request.sampling, "stop_strings": request.stop}
        (found,) = self.engine.generate([request.prompt], keys=[request.keys], **how)
        for sample, each in enumerate(found):
            request.receiver.end(sample, each.text, each.finish, len(each.tokens))

    def _end(self) -> None:
        closed = Closed("the server is shutting down")
        for request in self._waiting:
            request.receiver.fail(closed)
        for _, future in self._jobs:
            if future.set_running_or_notify_cancel():
                future.set_exception(closed)
        self._waiting.clear()
        self._jobs.clear()
        if self.batch is not None:
            self.batch.fail(closed)


def _run(job: Callable[[], Any], future: "Future[Any]") -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)


def _tell_failure(receiver: Receiver, future: "Future[Any]") -> None:
    if not future.cancelled() and isinstance(error := future.exception(), Exception):
        receiver.fail(error)
