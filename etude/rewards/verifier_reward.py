"""Verifier reward: check final answers with verifiers that run in a child process, since none of them can be trusted to return.

    with VerifierReward(timeout_seconds=5) as feedback:
        rewards = feedback.judge([("The answer is 4.", Task("What is 2 + 2?", "4", "numeric"))])

What the containment covers:

- A verifier that hangs, raises, exits, crashes its process, allocates without end, prints, reads, or returns no valid reward costs its
  item's score (None, never 0) and nothing else. A hung or dead verifier costs its time-out and a fork, but no new imports.
- The child and all that it started die with `close` and with this process, even by SIGKILL; what an item started dies with its time-out.
- The main process runs no line of a verifier's file. Each file has its own processes, so that none judges for another, and the built-in
  verifiers share one.
- Where the kernel allows it (`closed` lists what it blocks; `etude.rewards.isolation`), a verifier can write only temporary files, which
  are removed after its item, cannot use the network, and can touch only its own processes. It sees PATH and similar environment variables
  and those that begin with VERIFIER_, no keys and tokens.
- Its output is cut to 4,096 characters, and parsed as untrusted text (`etude.rewards.reply`).

What it does not cover: a verifier can read every file that you can read, and may lock them (`flock`). The memory limit applies to each
process, and only the time-out bounds the number of processes and the size of temporary files. The top level of a verifier's file runs once,
in the process that is forked for its items: there it may influence its own later rewards, and what it starts ends with `close`. Without
Landlock 6 (Linux 6.12) signals leave the child, and processes that fork and exit in turns may outlive it. On other systems than Linux
nothing is blocked, and a time-out costs new imports. You chose the verifier's code; nobody chose the text that it reads.
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
from etude.tasks.function_check import split_name
from etude.tasks.reward import Reward
from etude.tasks.task import Task

Isolation = bool | Literal["required"]
"""Whether verifiers are isolated: true blocks what the kernel can block, and reports the rest; `required` refuses to judge if anything is
left."""

COUNTED = ("judged", "timed_out", "crashed")
"""Items judged, and those among them that timed out or crashed."""

_MOST_PROCESSES = 8
_BUILT_IN = ""
"""The key of the process of built-in verifiers; others are keyed by their file or module."""


class Stopped(Exception):
    """The batch was cancelled by `stop`."""


class VerifierReward:
    """Scores texts with verifiers in child processes; a context manager.

    `judge` waits for the rewards. `begin` judges on a thread, one batch after another; a caller must wait for all batches that it began
    before it calls `judge`. The thread that first judges must outlive the feedback.
    """

    def __init__(
        self, timeout_seconds: float = 5.0, *, memory_bytes: int = 4 * 2**30, isolate: Isolation = True, right_at: float | None = None
    ) -> None:
        """Set the limits: `timeout_seconds` for one item without loading its verifier, `memory_bytes` for a child (0: no limit).

        `isolate` False leaves files, network and the environment open, for a verifier that needs them; `required` refuses to judge if the
        kernel cannot block all three of files, network and processes. `right_at` overrides the verifiers' own score from which on an answer
        is right. Raises UserError for a time-out that is not above 0.
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

    def __enter__(self) -> "VerifierReward":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()
        self.close()

    def counts_since(self, before: Mapping[str, int]) -> dict[str, int]:
        """Return what was counted since `counts` was `before`."""
        return {name: self.counts[name] - before.get(name, 0) for name in COUNTED}

    def begin(self, pairs: Sequence[tuple[str, Task]]) -> "Future[list[Reward]]":
        """Judge in the background; the future's result is the rewards, or the exception."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifiers")
        return self._thread.submit(self.judge, pairs)

    def stop(self) -> None:
        """Cancel all background batches at once, whatever their verifiers do."""
        if self._thread is not None:
            self._is_stopped = True
            for child in list(self._children.values()):
                child.end()
            self._thread.shutdown(cancel_futures=True)
            self._thread, self._is_stopped = None, False
            self.close()  # children die with the thread that started them

    def close(self) -> None:
        """Kill the children; a later `judge` starts new ones."""
        for place in list(self._children):
            self._kill(place)

    @property
    def closed(self) -> list[str]:
        """The accesses that are blocked for verifiers here: those of `files`, `network` and `processes` that the kernel can block."""
        child = next(iter(self._children.values()), None)
        return (child or self._child(_BUILT_IN)).closed

    def prepare(self, tasks: Sequence[Task]) -> str:
        """Load the verifiers of some tasks, so that problems are found before a run begins.

        Returns a sentence on what is not blocked for the user's own verifiers and should be; "" if there is nothing to say. Raises
        UserError for a verifier that does not load, and if isolation is required and not available.
        """
        for verifier, family in dict.fromkeys(_loads_of(task) for task in tasks):
            self._child(_place(verifier)).load(verifier, family)
        missing = what_lacks(self.closed) if self.isolate and any(":" in task.verifier for task in tasks) else ""
        if not missing:
            return ""
        return f"verifiers are not kept from {missing}: run none that you do not trust; isolate_verifiers required refuses to run like this"

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        """Return one reward for each (text, task), in order.

        Raises UserError for a task whose metadata is not JSON, for a verifier that does not load, and if isolation is required and not
        available.
        """
        requests = [_request(index, text, task) for index, (text, task) in enumerate(pairs)]
        places: dict[str, list[int]] = {}
        for index, (_, task) in enumerate(pairs):
            places.setdefault(_place(task.verifier), []).append(index)
        rewards: dict[int, Reward] = {}
        try:
            for place, indexes in places.items():
                loads = dict.fromkeys(_loads_of(pairs[index][1]) for index in indexes)
                while left := [index for index in indexes if index not in rewards]:
                    self._judge_until_trouble(place, loads, {index: requests[index] for index in left}, rewards)
        except BaseException:
            self.close()  # replies to this batch must not meet the next
            raise
        self.counts["judged"] += len(rewards)
        return [rewards[index] for index in range(len(pairs))]

    def _judge_until_trouble(
        self, place: str, loads: Mapping[tuple[str, str], None], requests: Mapping[int, bytes], rewards: dict[int, Reward]
    ) -> None:
        """Add rewards until all are there, or until one item kills the judge."""
        child = self._asked(place, loads, list(requests.values()))
        deadline = time.monotonic() + self.timeout_seconds
        for index in requests:
            line = child.receive(deadline)
            if line is None:
                self.counts["timed_out"] += 1
                rewards[index] = Reward(None, message=f"timed out after {float(self.timeout_seconds)} s")
                if child.stop(is_gone=False) is None:
                    self._kill(place)
                return
            try:
                if line == GONE:
                    raise BadReply
                reward, has_failed = read_reply(line, index)
                rewards[index] = reward if self.right_at is None else replace(reward, right_at=self.right_at)
                self.counts["crashed"] += has_failed
                deadline = time.monotonic() + self.timeout_seconds  # of the next item, which starts only after a reply to this one
            except BadReply:
                self.counts["crashed"] += 1
                ended = child.stop(is_gone=True)
                rewards[index] = Reward(None, message=f"the verifier's process ended: {ended or child.ending()}")
                if ended is None:
                    self._kill(place)
                return

    def _asked(self, place: str, loads: Mapping[tuple[str, str], None], requests: Sequence[bytes]) -> VerifierProcess:
        """Return the child of a place with its verifiers loaded and the requests sent. Raises UserError if two children in a row accept
        none.
        """
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
        """Return the running child of a place, or start one. Raises UserError if isolation is required and not available."""
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
    return split_name(verifier)[0] if ":" in verifier else _BUILT_IN


def _loads_of(task: Task) -> tuple[str, str]:
    """Return what a task needs loaded: its verifier, and for reasoning_gym the family."""
    return task.verifier, str(task.metadata.get("family", "")) if task.verifier == "reasoning_gym" else ""


def _request(index: int, text: str, task: Task) -> bytes:
    try:
        return json.dumps({"id": index, "text": text, "task": asdict(task)}).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise UserError(f"metadata of task {task.origin or task.key} must hold JSON values only: {error}") from error
