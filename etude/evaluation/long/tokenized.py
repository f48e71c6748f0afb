"""Tokenized long-context tasks in two parts: the text, and the question with the beginning of its answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from etude.errors import UserError
from etude.evaluation.long.facts import babi_generator
from etude.evaluation.long.haystack import NOISE, Haystack
from etude.evaluation.long.kinds import FROM_FILES, KINDS, Generator
from etude.evaluation.long.spans import qmsum_generator, squality_generator
from etude.evaluation.long.task import LongTask
from etude.randomness import seed_for

_TEXT = "\x00"
"""Marks the place of the text."""


@dataclass(frozen=True)
class TokenizedTask:
    """A task as tokens."""

    task: LongTask
    text: tuple[int, ...]
    question: tuple[int, ...]


def generators_by_kind(files: Mapping[str, Path | None]) -> dict[str, Generator]:
    """Return the generators of all kinds, those from files if their file is given."""
    made: dict[str, Callable[[Path], Generator]] = {"facts": babi_generator, "meetings": qmsum_generator, "stories": squality_generator}
    return dict(KINDS) | {name: made[name](path) for name in FROM_FILES if (path := files.get(name))}


def make_haystack(texts: Sequence[str], tokenizer: Any) -> Haystack:
    """Join the texts to a haystack; noise without any."""
    return Haystack("\n\n".join(texts) or NOISE, lambda text: len(_tokens(tokenizer, text)))


def make_tasks(
    tokenizer: Any,
    kind: str,
    make: Generator,
    haystack: Haystack,
    *,
    tokens: int,
    n: int,
    seed: int,
    start: int = 0,
    system: str | None = None,
) -> list[TokenizedTask]:
    """Create `n` tasks of a kind with at most `tokens` tokens each, including the question, beginning with number `start`.

    The task of a number depends only on the seed, not on `n`. Raises UserError if the question leaves no room for a text.
    """
    found = []
    for number in range(start, start + n):
        name = seed_for(seed, "long", kind, tokens, number)
        room, before = tokens, ""
        for _ in range(8):  # text lengths are approximate, and the question is known only after the text
            task = make(Random(name), haystack, room)
            text, question = tokenize_task(tokenizer, task, system)
            over = len(text) + len(question) - tokens
            if over <= 0:
                break
            room -= over
            if task.context == before:  # reducing the length by less than a sentence removes none
                room = min(room, haystack.count(before) - over)
            before = task.context
            if room <= 0:
                raise UserError(f"tokens is {tokens}, but the question of a task of {kind} takes {len(question)}: set tokens to more")
        else:
            raise UserError(f"no task of {kind} fits into {tokens} tokens: set tokens to more")
        found.append(TokenizedTask(task, text, question))
    return found


def tokenize_task(tokenizer: Any, task: LongTask, system: str | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokenize text and question with the chat template, the answer begun; without a template as plain text."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": f"{_TEXT}\n\n{task.question}"}]
        messages = messages if system is None else [{"role": "system", "content": system}, *messages]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, instruction="")
    else:
        rendered = f"{_TEXT}\n\n{task.question}\n"
    before, after = rendered.split(_TEXT)
    return tuple(_tokens(tokenizer, before + task.context)), tuple(_tokens(tokenizer, after + task.begin))


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found
