"""What a run replays: files as token ids, pieces of text with their first token given, and questions with the answers to imitate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.evaluation.retention import make_probe
from etude.learn.example import Example
from etude.learn.replay import ReplaySettings
from etude.rollouts.prompts import render_demonstration, render_prompts
from etude.suites.retention_probe import read_text
from etude.tasks.choices import choices_of, remove_choices
from etude.tasks.files import ENDINGS, file_rows, find_file
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task


def pieces_of(replay: ReplaySettings, tokenizer: Any, room: int, data: Path | None, measured: Sequence[Task]) -> list[Example]:
    """The pieces of all files, of at most `room` tokens; questions that are measured elsewhere, whatever choices stand behind
    them, are left out.
    """
    pieces = []
    for path in replay.path:
        pieces += _windows(replay, path, tokenizer, room, data) if _is_text(path, data) else _answers(path, tokenizer, room, data, measured)
    if replay.path and not pieces:
        raise UserError(f"retention.replay.path: {', '.join(replay.path)} gave nothing that could be replayed: name other files")
    return pieces


def _is_text(path: str, data: Path | None) -> bool:
    """Whether a file is a text: by its ending, or as rows of which the first has a column `text` and no question."""
    if Path(path).suffix not in ENDINGS:
        return True
    _, row = next(iter(file_rows(find_file(path, data))))
    return "text" in row and not {"question", "prompt", "messages"} & row.keys()


def _windows(replay: ReplaySettings, path: str, tokenizer: Any, room: int, data: Path | None) -> list[Example]:
    text, window = read_text("retention.replay.path", path, data), min(replay.window_tokens, room)
    probe = make_probe(text, [], tokenizer, window_tokens=window, text_tokens=len(text.encode()) + 1, room=room)
    return [Example(piece[:1], piece[1:]) for piece in probe.windows]


def _bare(task: Task) -> str:
    """The key of a task's question without its choices."""
    return Task(remove_choices(task.question, choices_of(task))).key


def _answers(path: str, tokenizer: Any, room: int, data: Path | None, measured: Sequence[Task]) -> list[Example]:
    tasks = load_tasks(TaskSource(path=[path]), split="replay", n=None, seed=0, data=data)
    asked = {_bare(task) for task in measured}
    tasks = [task for task in tasks if _bare(task) not in asked]
    pieces = [
        Example(prompt, render_demonstration(tokenizer, task))
        for task, prompt in zip(tasks, render_prompts(tokenizer, tasks, room), strict=True)
    ]
    for task, piece in zip(tasks, pieces, strict=True):
        if len(piece.prompt) + len(piece.completion) > room:
            length = len(piece.prompt) + len(piece.completion)
            raise UserError(f"retention.replay.path: {task.origin} has {length} tokens, prompt and answer; the model has room for {room}")
    return pieces
