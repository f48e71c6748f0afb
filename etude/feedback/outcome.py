"""Outcome feedback: was the final answer right? Verifiers run in a child process, since none of them can be trusted to return.

    with OutcomeFeedback(timeout_seconds=5) as feedback:
        verdicts = feedback.judge([("The answer is 4.", Task("What is 2 + 2?", "4", "numeric"))])

What the containment covers: a verifier that hangs, raises, exits, crashes its process, allocates without end, prints or reads costs its
item's score (None, never 0) and nothing else; the child and all that it started die with a time-out, with `close`, and with this process,
even by SIGKILL. Where the kernel can (`closed` says what of it), a verifier writes no files but temporary ones, reaches no network, and
touches no process but its own. What it does not cover: every file that you can read is open to it, the memory limit holds for each process,
and the number of processes and the size of temporary files are bounded by the time-out alone. A verifier is code that you chose, and its
file is run once in this process too, to see that it has the function; the text that it reads is what nobody chose.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from types import TracebackType
from typing import Any

from etude.errors import UserError
from etude.feedback.process import START_SECONDS, VerifierProcess
from etude.feedback.verdict import Verdict
from etude.tasks.task import Task

COUNTED = ("judged", "timed_out", "crashed")
"""Items, and those among them that timed out or crashed."""


class Stopped(Exception):
    """What was begun is no longer wanted."""


class OutcomeFeedback:
    """A child process that scores texts; a context manager.

    `judge` waits for the verdicts, `begin` has them judged on a thread of its own, one batch after another; whoever began some waits for
    all of them before he judges himself. The thread that first judges must outlive the feedback.
    """

    def __init__(
        self, timeout_seconds: float = 5.0, *, memory_bytes: int = 4 * 2**30, is_isolated: bool = True, right_at: float | None = None
    ) -> None:
        """`timeout_seconds` is the time of one item, loading its verifier aside; `memory_bytes` bounds the child's memory, unless 0.

        `is_isolated` False leaves files and network open, for a verifier that needs them. `right_at` is the score from which on an answer
        is right, whatever its verifier says of that.
        """
        if not timeout_seconds > 0:
            raise UserError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        self.timeout_seconds = timeout_seconds
        self.memory_bytes = memory_bytes
        self.is_isolated = is_isolated
        self.right_at = right_at
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._child: VerifierProcess | None = None
        self._thread: ThreadPoolExecutor | None = None
        """Lives as long as the feedback: a child dies with the thread that started it."""
        self._is_stopped = False

    def __enter__(self) -> "OutcomeFeedback":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
        self.close()

    def counts_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """What was counted since `counts` was so."""
        return {name: self.counts[name] - before.get(name, 0) for name in COUNTED}

    def begin(self, pairs: Sequence[tuple[str, Task]]) -> "Future[list[Verdict]]":
        """As `judge`, without waiting: the verdicts, or what was raised, are the future's result."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifiers")
        return self._thread.submit(self.judge, pairs)

    def stop(self) -> None:
        """End what was begun at once, whatever its verifiers do."""
        if self._thread is not None:
            self._is_stopped = True
            if child := self._child:
                child.end()
            self._thread.shutdown(cancel_futures=True)
            self._thread, self._is_stopped = None, False

    def close(self) -> None:
        """Kill the child; a later `judge` starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    @property
    def closed(self) -> list[str]:
        """What verifiers are kept from here: of `files`, `network` and `processes` those that the kernel grants."""
        return self._running_child().closed

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Verdict]:
        """One verdict for each (text, task), in order. Raises UserError for a task whose metadata is not JSON."""
        requests = [_request(index, text, task) for index, (text, task) in enumerate(pairs)]
        verdicts: list[Verdict] = []
        try:
            while len(verdicts) < len(requests):
                self._judge_until_trouble(requests, verdicts)
        except BaseException:
            self.close()  # replies to this batch must not meet the next
            raise
        self.counts["judged"] += len(verdicts)
        return verdicts

    def _judge_until_trouble(self, requests: Sequence[bytes], verdicts: list[Verdict]) -> None:
        """Append verdicts until all are there, or until one item took the child with it."""
        child = self._running_child()
        if self._is_stopped:  # asked after the child is known: `stop` ends one that it sees, and one that it does not see gets here
            raise Stopped
        child.send(requests[len(verdicts) :])
        deadline = time.monotonic() + self.timeout_seconds
        while len(verdicts) < len(requests):
            reply = child.receive(deadline)
            if reply is None:
                self.counts["timed_out"] += 1
                verdicts.append(Verdict(None, message=f"timed out after {float(self.timeout_seconds)} s"))
                return self.close()
            if "loading" in reply:
                deadline = time.monotonic() + START_SECONDS
                continue
            deadline = time.monotonic() + self.timeout_seconds
            if "loaded" in reply:
                continue
            if reply.get("id") != len(verdicts):  # the child is gone, or something else wrote into its pipe
                self.counts["crashed"] += 1
                verdicts.append(Verdict(None, message=f"the verifier's process ended: {child.ending()}"))
                return self.close()
            verdicts.append(self._verdict(reply))

    def _verdict(self, reply: dict[str, Any]) -> Verdict:
        if "error" in reply:
            self.counts["crashed"] += 1
            return Verdict(None, message=f"the verifier raised {reply['error']}")
        verdict = reply["verdict"]
        right_at = verdict["right_at"] if self.right_at is None else self.right_at
        said = verdict["score"], verdict["parts"], tuple(verdict["step_values"]), verdict["message"], verdict["words"]
        return Verdict(*said, right_at=right_at)

    def _running_child(self) -> VerifierProcess:
        if self._child is not None and not self._child.is_alive():
            self.close()
        if self._child is None:
            self._child = VerifierProcess(self.memory_bytes, self.is_isolated)
        return self._child


def _request(index: int, text: str, task: Task) -> bytes:
    try:
        return json.dumps({"id": index, "text": text, "task": asdict(task)}).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"metadata of task {task.origin or task.key} must hold JSON values only: {error}") from error
