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
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Literal

from etude.errors import UserError
from etude.rewards.functions import RewardFunction
from etude.rewards.isolation import what_lacks
from etude.rewards.lines import GONE
from etude.rewards.process import VerifierProcess
from etude.rewards.reply import LONGEST_MESSAGE, BadReply, read_reply
from etude.tasks.function_check import PYTHON_OBJECT, split_name
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
        self,
        timeout_seconds: float = 5.0,
        *,
        memory_bytes: int = 4 * 2**30,
        isolate: Isolation = True,
        right_at: float | None = None,
        function: RewardFunction | None = None,
    ) -> None:
        """Set the limits: `timeout_seconds` for one answer without loading its verifier, `memory_bytes` for a child (0: no limit).

        `isolate` False leaves files, network and the environment open, for a verifier that needs them; `required` refuses to judge if the
        kernel cannot block all three of files, network and processes. `right_at` overrides the verifiers' own score from which on an answer
        is right. `function` scores the tasks whose verifier has its name. Raises UserError for a time-out that is not above 0.
        """
        if not timeout_seconds > 0:
            raise UserError(f"timeout_seconds must be above 0, got {timeout_seconds}")
        self.timeout_seconds = timeout_seconds
        self.memory_bytes = memory_bytes
        self.isolate = isolate
        self.right_at = right_at
        self.function = function
        self._bytes = b""
        """The function for the child, as it was at first, whatever becomes of what it refers to."""
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
            if not self._stays(verifier):
                self._child(_place(verifier)).load(verifier, family, self._pickled(verifier))
        if self.function is not None and (task := next((each for each in tasks if each.verifier == self.function.name), None)):
            self.function.check(task)
        is_own = any(":" in task.verifier and not self._stays(task.verifier) for task in tasks)
        missing = what_lacks(self.closed) if self.isolate and is_own else ""
        if not missing:
            return ""
        return f"verifiers are not kept from {missing}: run none that you do not trust; isolate_verifiers required refuses to run like this"

    def judge(self, pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        """Return one reward for each (text, task), in order.

        Raises UserError for a task whose metadata is not JSON, for a verifier that does not load, and if isolation is required and not
        available.
        """
        places: dict[str, list[_Item]] = {}
        for item in _items(pairs, self.function):
            places.setdefault(_place(item.task.verifier), []).append(item)
        rewards: dict[int, Reward] = {}
        try:
            for place, items in places.items():
                if self._stays(items[0].task.verifier):
                    for item in items:
                        self._judge_here(item, rewards)
                loads = dict.fromkeys(_loads_of(item.task) for item in items)
                while left := [item for item in items if item.place not in rewards]:
                    self._judge_until_trouble(place, loads, left, rewards)
        except BaseException:
            self.close()  # replies to this batch must not meet the next
            raise
        self.counts["judged"] += len(rewards)
        return [rewards[index] for index in range(len(pairs))]

    def _stays(self, verifier: str) -> bool:
        """Return whether a verifier is a Python object that runs in this process."""
        return self.function is not None and verifier == self.function.name and self.function.stays

    def _pickled(self, verifier: str) -> bytes | None:
        """Return a verifier that is a Python object, as bytes; None for another. Raises UserError if it is not known."""
        if not verifier.startswith(PYTHON_OBJECT):
            return None
        if self.function is None or verifier != self.function.name:
            name = verifier.removeprefix(PYTHON_OBJECT)
            raise UserError(f"the tasks are scored by the Python function {name}, which only a call from Python has: pass it as reward=")
        if not self._bytes:
            self._bytes = self.function.pickled()
        return self._bytes

    def _judge_here(self, item: "_Item", rewards: dict[int, Reward]) -> None:
        """Add the rewards of a function that runs in this process."""
        assert self.function is not None
        n = len(item.texts)
        try:
            found, failed = self.function.rewards(item.texts, item.task), 0
        except Exception as error:  # whatever a user's function raises is about its item
            found, failed = [Reward(None, message=f"the reward function raised {type(error).__name__}: {error}"[:LONGEST_MESSAGE])] * n, n
        self._add(item, found, rewards)
        self.counts["crashed"] += failed

    def _add(self, item: "_Item", found: Sequence[Reward], rewards: dict[int, Reward]) -> None:
        for place, reward in enumerate(found, item.place):
            rewards[place] = reward if self.right_at is None else replace(reward, right_at=self.right_at)

    def _judge_until_trouble(
        self, place: str, loads: Mapping[tuple[str, str], None], items: Sequence["_Item"], rewards: dict[int, Reward]
    ) -> None:
        """Add rewards until all are there, or until one item kills the judge."""
        child = self._asked(place, loads, [item.request() for item in items])
        for item in items:
            n = len(item.texts)
            line = child.receive(time.monotonic() + n * self.timeout_seconds)  # an item starts only after a reply to the one before
            if line is None:
                self.counts["timed_out"] += n
                self._add(item, [Reward(None, message=f"timed out after {float(n * self.timeout_seconds)} s")] * n, rewards)
                if child.stop(is_gone=False) is None:
                    self._kill(place)
                return
            try:
                if line == GONE:
                    raise BadReply
                found, failed = read_reply(line, item.place, n)
                self._add(item, found, rewards)
                self.counts["crashed"] += failed
            except BadReply:
                self.counts["crashed"] += n
                ended = child.stop(is_gone=True)
                self._add(item, [Reward(None, message=f"the verifier's process ended: {ended or child.ending()}")] * n, rewards)
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
                child.load(verifier, family, self._pickled(verifier))
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


@dataclass(frozen=True)
class _Item:
    """Texts of one task that are judged together: one, or for a Python function those of a group."""

    place: int
    """The index of the first text."""
    texts: list[str]
    task: Task

    def request(self) -> bytes:
        """Return the line that asks for their rewards. Raises UserError if the task is not JSON."""
        try:
            return json.dumps({"id": self.place, "texts": self.texts, "task": asdict(self.task)}).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise UserError(f"metadata of task {self.task.origin or self.task.key} must hold JSON values only: {error}") from error


def _items(pairs: Sequence[tuple[str, Task]], function: RewardFunction | None) -> list[_Item]:
    """Split the texts into items: neighbours of one task go to a Python function together."""
    found: list[_Item] = []
    grouped = None if function is None else function.name
    for place, (text, task) in enumerate(pairs):
        if found and task.verifier == grouped and found[-1].task == task:
            found[-1].texts.append(text)
        else:
            found.append(_Item(place, [text], task))
    return found
