"""Python objects that a run begins with: a loaded model, tasks, a reward function.

Tasks and models become files of the run folder, so that a run of objects is resumed, checked and shared like one of files:

    given/tasks.jsonl             the training tasks
    given/evaluation/NAME.jsonl   a suite
    given/model/                  the model and its tokenizer; the object itself is not changed by the run

A reward function stays an object (`etude.rewards.functions`): who resumes the run passes it again.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.files import write_atomically
from etude.rewards.functions import RewardFunction
from etude.training.run_folder import GIVEN, RunFolder

TASKS, MODEL = f"{GIVEN}/tasks.jsonl", f"{GIVEN}/model"


def suite_file(name: str) -> str:
    """Return the file of a suite of objects, in the run folder."""
    return f"{GIVEN}/evaluation/{name}.jsonl"


@dataclass(frozen=True)
class Given:
    """The objects of one run."""

    rows: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Rows of tasks, by their file in the run folder."""
    model: tuple[Any, Any] | None = None
    """A model and its tokenizer."""
    function: RewardFunction | None = None

    @contextmanager
    def written(self, folder: RunFolder) -> Iterator[None]:
        """Write the files, and remove them after the block if the run has not begun. Raises UserError if a resumed run has others."""
        try:
            for name, rows in self.rows.items():
                self._write_rows(folder.path / name, rows)
            if self.model is not None and not (folder.path / MODEL).exists():
                self._write_model(folder.path / MODEL, *self.model)
            yield
        finally:
            if not folder.is_begun:
                shutil.rmtree(folder.path / GIVEN, ignore_errors=True)
                with suppress(OSError):  # it holds what is not ours, or was never made
                    folder.path.rmdir()

    @staticmethod
    def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if path.exists() and path.read_text(encoding="utf8") != text:
            raise UserError(f"--resume: the tasks of {path} changed since the run began: resume with those, or start another run")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)

    @staticmethod
    def _write_model(path: Path, model: Any, tokenizer: Any) -> None:
        partial = path.with_name(f"{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        except OSError as error:
            raise UserError(f"the model can't be saved to {path}: {error}") from error
        partial.rename(path)
