"""Outcome feedback: was the final answer right? Verifiers run in a child process, since none of them can be trusted to return.

    with OutcomeFeedback(timeout_seconds=5) as feedback:
        verdicts = feedback.judge([("The answer is 4.", Task("What is 2 + 2?", "4", "numeric"))])

What the containment covers:

- A verifier that hangs, raises, exits, crashes its process, allocates without end, prints, reads, or answers what is no verdict costs its
  item's score (None, never 0) and nothing else. A hung or dead one costs its time-out and a fork, not the imports again.
- The child and all that it started die with `close` and with this process, even by SIGKILL; what an item started dies with its time-out.
- The main process runs no line of a verifier's file. Each file has processes of its own, so that none judges for another, and the
  verifiers that are built in share one.
- Where the kernel can (`closed` says what of it; `etude.rewards.isolation`), a verifier writes no files but temporary ones, which are
  removed after its item, reaches no network, and touches no process but its own. Of the environment it sees PATH and the like and what
  begins with VERIFIER_, no keys and tokens.
- What it says is cut to 4,096 characters, and read as text from a stranger (`etude.rewards.reply`).

What it does not cover: every file that you can read is open to it, and it may lock them (`flock`); the memory limit holds for each process,
and the number of processes and the size of temporary files are bounded by the time-out alone. What a verifier's file does at its top level
is done once, in the process that is forked for its items: there it may reach its own later verdicts, and what it starts ends with `close`.
Without Landlock 6 (Linux 6.12) signals leave the child, and processes that fork and exit by turns may outlive it. On other systems than
Linux nothing is closed, and a time-out costs the imports again. A verifier is code that you chose; the text that it reads is what nobody
chose.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from types import TracebackType
from typing import Literal

from etude.errors import UserError
from etude.rewards.isolation import what_lacks
from etude.rewards.lines import GONE
from etude.rewards.process import VerifierProcess
from etude.rewards.reply import BadReply, read_reply
from etude.rewards.verdict import Verdict
from etude.tasks.names import place_of
from etude.tasks.task import Task

Isolation = bool | Literal["required"]
"""Whether verifiers are shut in: true closes what the kernel can, and says what it can't; `required` judges nothing where it can't."""

COUNTED = ("judged", "timed_out", "crashed")
"""Items, and those among them that timed out or crashed."""

_MOST_PROCESSES = 8
_BUILT_IN = ""
"""The place of the verifiers that come with etude; others are at their file or module."""


class Stopped(Exception):
    """What was begun is no longer wanted."""


class OutcomeFeedback:
    """Child processes that score texts; a context manager.

    `judge` waits for the verdicts, `begin` has them judged on a thread of its own, one batch after another; whoever began some waits for
    all of them before he judges himself. The thread that first judges must outlive the feedback.
    """

    def __init__(
        self, timeout_seconds: float = 5.0, *, memory_bytes: int = 4 * 2**30, isolate: Isolation = True, right_at: float | None = None
    ) -> None:
        """`timeout_seconds` is the time of one item, loading its verifier aside; `memory_bytes` bounds the memory of a child, unless 0.

        `isolate` False leaves files, network and the environment open, for a verifier that needs them; `required` refuses to judge where
        the kernel can't close all three of files, network and processes. `right_at` is the score from which on an answer is right, whatever
        its verifier says of that.
        """
        if not timeout_seconds > 0:
            raise UserError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        self.timeout_seconds = timeout_seconds
        self.memory_bytes = memory_bytes
        self.isolate = isolate
        self.right_at = right_at
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
        self._children: dict[str, VerifierProcess] = {}
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
            for child in list(self._children.values()):
                child.end()
            self._thread.shutdown(cancel_futures=True)
            self._thread, self._is_stopped = None, False
            self.close()  # children die with the thread that started them

    def close(self) -> None:
        """Kill the children; a later `judge` starts others."""
        for place in list(self._children):
            self._kill(place)

    @property
    def closed(self) -> list[str]:
        """What verifiers are kept from here: of `files`, `network` and `processes` those that the kernel grants."""
        child = next(iter(self._children.values()), None)
        return (child or self._child(_BUILT_IN)).closed

    def prepare(self, tasks: Sequence[Task]) -> str:
        """Have the verifiers of some tasks loaded, so that what is wrong with one is known before a run begins.

        Returns what is not closed to verifiers of the user's own and should be, in a sentence; "" where there is nothing to say. Raises
        UserError for a verifier that does not load, and where isolation is required and is not to be had.
        """
        for verifier, family in dict.fromkeys(_loads_of(task) for task in tasks):
            self._child(_place(verifier)).load(verifier, family)
        missing = what_lacks(self.closed) if self.isolate and any(":" in task.verifier for task in tasks) else ""
        if not missing:
            return ""
        return f"verifiers are not kept from {missing}: run none that you do not trust; isolate_verifiers required refuses to run like this"

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Verdict]:
        """One verdict for each (text, task), in order.

        Raises UserError for a task whose metadata is not JSON, for a verifier that does not load, and where isolation is demanded and is
        not to be had.
        """
        requests = [_request(index, text, task) for index, (text, task) in enumerate(pairs)]
        places: dict[str, list[int]] = {}
        for index, (_, task) in enumerate(pairs):
            places.setdefault(_place(task.verifier), []).append(index)
        verdicts: dict[int, Verdict] = {}
        try:
            for place, indexes in places.items():
                loads = dict.fromkeys(_loads_of(pairs[index][1]) for index in indexes)
                while left := [index for index in indexes if index not in verdicts]:
                    self._judge_until_trouble(place, loads, {index: requests[index] for index in left}, verdicts)
        except BaseException:
            self.close()  # replies to this batch must not meet the next
            raise
        self.counts["judged"] += len(verdicts)
        return [verdicts[index] for index in range(len(pairs))]

    def _judge_until_trouble(
        self, place: str, loads: Mapping[tuple[str, str], None], requests: Mapping[int, bytes], verdicts: dict[int, Verdict]
    ) -> None:
        """Add verdicts until all are there, or until one item took the judge with it."""
        child = self._asked(place, loads, list(requests.values()))
        deadline = time.monotonic() + self.timeout_seconds
        for index in requests:
            line = child.receive(deadline)
            if line is None:
                self.counts["timed_out"] += 1
                verdicts[index] = Verdict(None, message=f"timed out after {float(self.timeout_seconds)} s")
                if child.stop(is_gone=False) is None:
                    self._kill(place)
                return
            try:
                if line == GONE:
                    raise BadReply
                verdict, has_failed = read_reply(line, index)
                verdicts[index] = verdict if self.right_at is None else replace(verdict, right_at=self.right_at)
                self.counts["crashed"] += has_failed
                deadline = time.monotonic() + self.timeout_seconds  # of the next one, which only a reply to this one starts
            except BadReply:
                self.counts["crashed"] += 1
                ended = child.stop(is_gone=True)
                verdicts[index] = Verdict(None, message=f"the verifier's process ended: {ended or child.ending()}")
                if ended is None:
                    self._kill(place)
                return

    def _asked(self, place: str, loads: Mapping[tuple[str, str], None], requests: Sequence[bytes]) -> VerifierProcess:
        """The child of a place, with its verifiers loaded and the requests on their way. Raises UserError where two of them take none."""
        for _ in range(2):
            child = self._child(place)
            if self._is_stopped:  # asked after the child is known: `stop` ends one that it sees, and one that it does not see gets here
                raise Stopped
            for verifier, family in loads:
                child.load(verifier, family)
            if child.send(requests):
                return child
            self._kill(place)
        raise UserError(f"the verifiers' process of {place or 'the verifiers that are built in'} starts and then takes no answers to judge")

    def _child(self, place: str) -> VerifierProcess:
        """The running child of a place. Raises UserError where isolation is required and is not to be had."""
        child = self._children.get(place)
        if child is not None and not child.is_alive():
            self._kill(place)
            child = None
        if child is None:
            while len(self._children) >= _MOST_PROCESSES:
                self._kill(next(iter(self._children)))
            child = self._children[place] = VerifierProcess(self.memory_bytes, bool(self.isolate))
            if self.isolate == "required" and (missing := what_lacks(child.closed)):
                self.close()
                raise UserError(
                    f"isolate_verifiers is required, but verifiers can't be kept from {missing}: set it to true, which closes "
                    f"{' and '.join(child.closed) or 'nothing'} here, or run on a kernel that can"
                )
        return child

    def _kill(self, place: str) -> None:
        self._children.pop(place).kill()


def _place(verifier: str) -> str:
    return place_of(verifier)[0] if ":" in verifier else _BUILT_IN


def _loads_of(task: Task) -> tuple[str, str]:
    """What has to be loaded for a task: its verifier, and of reasoning_gym the family's scorer."""
    return task.verifier, str(task.metadata.get("family", "")) if task.verifier == "reasoning_gym" else ""


def _request(index: int, text: str, task: Task) -> bytes:
    try:
        return json.dumps({"id": index, "text": text, "task": asdict(task)}).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"metadata of task {task.origin or task.key} must hold JSON values only: {error}") from error
