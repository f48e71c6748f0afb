"""The retention probe of a run: its text and questions, and their log-probs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etude.device.machine import Device, Machine
from etude.engine.completion import Logprobs, Tokens
from etude.errors import UserError
from etude.evaluation.retention import OLD_KNOWLEDGE, Probe, make_probe
from etude.evaluation.settings import Retention
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.tasks.files import ENDINGS, candidate_paths, file_rows
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task


def probe_for(retention: Retention, tokenizer: Any, positions: int, data: Path | None) -> Probe | None:
    """Build the probe of the settings, from the user's files or the shipped ones; returns None if it is off.

    Raises UserError for a file that can't be read.
    """
    if not retention.probe:
        return None
    files = retention.text if retention.is_own else [str(OLD_KNOWLEDGE / "text.txt")]
    texts = [read_text("retention.text", path, data) for path in files]
    window = min(retention.window_tokens, positions)
    return make_probe(
        "\n\n".join(texts),
        retention_questions(retention, data),
        tokenizer,
        window_tokens=window,
        text_tokens=retention.text_tokens,
        room=positions,
    )


def retention_questions(retention: Retention, data: Path | None) -> list[Task]:
    """Load the questions of the probe; none if it is off."""
    files = (retention.choices if retention.is_own else [str(OLD_KNOWLEDGE / "questions.jsonl")]) if retention.probe else []
    columns = retention.columns if retention.is_own else {}
    sources = [TaskSource(path=[path], columns=columns, verifier="choice") for path in files]
    return [task for source in sources for task in load_tasks(source, split="retention", n=retention.n, seed=0, data=data)]


def logprobs_of(model: Any, place: Device, machine: Machine) -> Logprobs:
    """Return a function that computes log-probs as in training: the same weights, precision and packing."""

    def logprobs(pairs: Sequence[tuple[Tokens, Tokens]]) -> list[tuple[float, ...]]:
        examples = [Example(prompt, completion) for prompt, completion in pairs]
        return completion_logprobs(model, examples, place.dtype, batch_tokens=machine.max_tokens_per_microbatch)

    return logprobs


def read_text(setting: str, path: str, data: Path | None) -> str:
    """Read a text file in the current folder or the data folder; of rows (`etude.tasks.files`) the column `text`, joined by empty lines.

    Raises UserError for a missing, empty or wrongly encoded file, and for rows without that column.
    """
    place = next((place for place in candidate_paths(path, data) if place.is_file()), None)
    if place is None:
        raise UserError(f"{setting}: {path!r} is not a file in the current folder{' or the data folder' if data else ''}")
    try:
        text = _column(setting, place) if place.suffix in ENDINGS else place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{setting}: {path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not text.strip():
        raise UserError(f"{setting}: {path} is empty")
    return text


def _column(setting: str, place: Path) -> str:
    rows = list(file_rows(place))
    for origin, row in rows:
        if not isinstance(row.get("text"), str):
            raise UserError(
                f"{setting}: {origin} has no text: its columns are {', '.join(map(str, row))}; rows of a text need one called text"
            )
    return "\n\n".join(row["text"] for _, row in rows)
