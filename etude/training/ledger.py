"""The ledger: attempts, rewards and notes of a step, written before anything is learned from them.

ledger/00012.jsonl.gz   step 12: counts, times and the tasks that the model wrote, then one line an attempt with its tokens,
                        log-probs and reward

A step that is repeated after a kill reads its attempts and rewards from here: nothing is sampled or scored twice, and an answer that timed
out once does not pass the second time. Floats read back to the same bits.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import write_atomically
from etude.renamed import renamed_ledger_row, renamed_metrics
from etude.rollouts.attempts import Attempt, Group, Source
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.run_folder import step_of


class Ledger:
    """The batches in `folder` that no checkpoint holds yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, batch: RolloutBatch) -> None:
        """Write a step, with one rename."""
        self.folder.mkdir(exist_ok=True)
        sizes = [len(group.attempts) for group in batch.groups]
        head: dict[str, Any] = {"counts": batch.metrics, "seconds": batch.seconds}
        head |= {} if len(set(sizes)) == 1 else {"sizes": sizes}
        head |= {"made": [asdict(group.task) for group in batch.groups[batch.given.stop :]]} if batch.num_synthetic else {}
        head |= {"notes": batch.notes} if batch.notes else {}
        lines = [json.dumps(head)]
        for group, rewards in zip(batch.groups, batch.rewards, strict=True):
            for attempt, reward in zip(group.attempts, rewards, strict=True):
                lines.append(json.dumps({"task": group.task.key, "attempt": vars(attempt), "reward": reward.to_json()}))
        write_atomically(self._path(batch.step), gzip.compress("\n".join(lines).encode(), compresslevel=1, mtime=0))

    def read(self, step: int, tasks: Sequence[Task]) -> RolloutBatch | None:
        """Return the stored batch of a step at these tasks, or None. Raises UserError if it has other tasks or is damaged."""
        path = self._path(step)
        if not path.exists():
            return None
        try:
            head, *rows = map(json.loads, gzip.decompress(path.read_bytes()).decode().splitlines())
            made = [_task(row) for row in head.get("made", ())]
            tasks = [*tasks, *made]
            sizes = head.get("sizes") or [len(rows) // len(tasks)] * len(tasks)
            parts = [rows[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
            if sum(sizes) != len(rows) or not all(parts):
                raise ValueError(f"{len(rows)} attempts for {len(tasks)} tasks")
            groups = [Group(task, tuple(_attempt(row["attempt"]) for row in part)) for task, part in zip(tasks, parts, strict=True)]
            rewards = [[_reward(renamed_ledger_row(row)["reward"]) for row in part] for part in parts]
            counts, notes = renamed_metrics(head["counts"]), dict(head.get("notes", {}))
            seconds = {name: float(value) for name, value in renamed_metrics(head["seconds"]).items()}
            if "rollout_seconds" not in seconds:
                raise ValueError("no rollout_seconds")
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): remove it and resume, which samples that step again") from error
        if [row["task"] for row in rows] != [task.key for task, part in zip(tasks, parts, strict=True) for _ in part]:
            raise UserError(f"--resume: {path} holds attempts at other tasks: resume with the data that the run began with")
        return RolloutBatch(step, groups, rewards, counts, seconds, len(made), notes, is_from_ledger=True)

    def steps(self) -> list[int]:
        """Return the stored steps in order."""
        return sorted(step for path in self.folder.glob("*.jsonl.gz") if (step := step_of(path)) is not None)

    def forget(self, up_to: int) -> None:
        """Remove the steps that a checkpoint holds, `up_to` included."""
        for step in self.steps():
            if step <= up_to:
                self._path(step).unlink()

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:05d}.jsonl.gz"


def _task(row: Mapping[str, Any]) -> Task:
    prompt = row["prompt"]
    return Task(**{**row, "prompt": prompt if isinstance(prompt, str) else tuple(prompt)})


def _attempt(row: Mapping[str, Any]) -> Attempt:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    values["sources"] = tuple(map(Source, values["sources"]))
    return Attempt(**values)


def _reward(row: Mapping[str, Any]) -> Reward:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Reward(**values)
