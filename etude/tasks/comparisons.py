"""Loads preference data: rows with a prompt, a chosen and a rejected answer.

| columns | becomes |
|---|---|
| `prompt`, `chosen`, `rejected` as text | unchanged |
| `prompt` as chat messages, `chosen` and `rejected` as the assistant's message (or its text) | prompt = the messages |
| `chosen` and `rejected` as whole conversations, no `prompt` | prompt = the common messages before the last one |

`columns` maps these names to a publisher's. Other columns are ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.tasks.files import file_rows, find_file
from etude.tasks.task import Task

NAMES = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Comparison:
    """A preference pair: a task, and two answers of which the first is preferred."""

    task: Task
    chosen: str
    rejected: str


def load_comparisons(paths: Sequence[str], columns: Mapping[str, str], n: int | None, data: Path | None) -> list[Comparison]:
    """Load all rows of preference files, or the first `n`.

    Raises UserError, which names the file and the line, for a wrong row, an unknown name in `columns`, or fewer than `n` rows.
    """
    wrong = [name for name in columns if name not in NAMES]
    if wrong:
        raise UserError(
            f"preferences.columns has {wrong[0]!r}: its names are {', '.join(NAMES)}, each with the name that your files have for it"
        )
    found = [comparison_from_row(row, columns, origin) for path in paths for origin, row in file_rows(find_file(path, data))]
    if n is not None and len(found) < n:
        raise UserError(f"preferences.n is {n}, but the files have {len(found)} rows: lower it, or name more files")
    return found[:n]


def comparison_from_row(row: Mapping[str, Any], columns: Mapping[str, str], origin: str) -> Comparison:
    """Convert a row to a preference pair.

    Raises UserError, which begins with `origin`, for a missing column, a wrong type, or two equal answers.
    """
    prompt, chosen, rejected = (row.get(columns.get(name, name)) for name in NAMES)
    if chosen is None or rejected is None:
        lacking = columns.get("chosen", "chosen") if chosen is None else columns.get("rejected", "rejected")
        raise UserError(
            f"{origin}: a preference needs {', '.join(NAMES)}, but column {lacking!r} is not there: map it with preferences.columns"
        )
    if prompt is None and isinstance(chosen, str):
        lacking = columns.get("prompt", "prompt")
        raise UserError(
            f"{origin}: there is no column {lacking!r} among {', '.join(row)}: name the one that holds the question with "
            "preferences.columns '{prompt: ...}'"
        )
    if prompt is None:
        prompt, chosen, rejected = _split_conversations(chosen, rejected, origin)
    asked = prompt if isinstance(prompt, str) else tuple(_messages(prompt, origin))
    if not asked or (not isinstance(asked, str) and asked[-1]["role"] != "user"):
        raise UserError(f"{origin}: a prompt must be text, or messages that end with the user's, got {str(prompt)[:80]!r}")
    texts = [_text(answer, origin) for answer in (chosen, rejected)]
    if texts[0] == texts[1]:
        raise UserError(f"{origin}: chosen and rejected are the same text, which says nothing: remove the row")
    return Comparison(Task(asked, origin=origin), *texts)


def _split_conversations(chosen: Any, rejected: Any, origin: str) -> tuple[Any, Any, Any]:
    """Split two conversations into their common prompt and their last messages."""
    one, other = _messages(chosen, origin), _messages(rejected, origin)
    if one[:-1] != other[:-1] or len(one) < 2:
        raise UserError(f"{origin}: without a prompt, chosen and rejected must be conversations that differ in their last message alone")
    return one[:-1], one[-1:], other[-1:]


def _messages(value: Any, origin: str) -> list[Mapping[str, str]]:
    good = isinstance(value, list) and all(
        isinstance(each, Mapping) and isinstance(each.get("role"), str) and isinstance(each.get("content"), str) for each in value
    )
    if not good or not value:
        raise UserError(f"{origin}: must be text or a list of {{role, content}}, got {str(value)[:80]!r}")
    return [{"role": each["role"], "content": each["content"]} for each in value]


def _text(answer: Any, origin: str) -> str:
    if isinstance(answer, str):
        return answer
    messages = _messages(answer, origin)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise UserError(f"{origin}: an answer must be text or one message of the assistant's, got {str(answer)[:80]!r}")
    return messages[0]["content"]
