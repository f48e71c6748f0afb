"""Requests → prompts and how they are answered → choices; what both kinds of requests have in common."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi import Request

from etude.engine.completion import Tokens
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.serve.answers import Choice, Inbox
from etude.serve.asking import asked
from etude.serve.errors import ClientGone
from etude.serve.metrics import Metrics
from etude.serve.model import Item, Model, Work
from etude.serve.protocol import ChatRequest, Common, CompletionRequest, Refused
from etude.serve.settings import ServeSettings
from etude.tasks.actions import add_instruction
from etude.tasks.task import Task, text_problem, with_system

Found = TypeVar("Found")
_LOOK_SECONDS = 0.25
"""Time between two looks whether the client is still there."""


class Server:
    """Answers requests with one model."""

    def __init__(self, model: Model, settings: ServeSettings, system: str | None, instruction: str | None) -> None:
        self.model, self.settings, self.system, self.instruction = model, settings, system, instruction
        self.metrics = Metrics(model.scheduler)
        self.started = int(time.time())

    # ------------------------------------------------------------------ requests → prompts

    def chat_items(self, body: ChatRequest) -> list[Item]:
        """Return the prompt of a conversation, with the model's own system message and instruction. Raises Refused."""
        given = Task(tuple(message.to_plain() for message in body.messages))
        (task,) = add_instruction(with_system([given], self.system), self.instruction or "")
        try:
            prompt = render_prompt(self.model.tokenizer, task)
        except UserError as error:
            raise Refused(str(error), param="messages") from None
        self._check_number(body.n)
        return [(task, prompt, asked(body, prompt, self.model, self.settings))]

    def completion_items(self, body: CompletionRequest) -> list[Item]:
        """Return the prompts of a completion. Raises Refused for an empty one, and for a token that the model does not have."""
        prompts = [self._completion_prompt(prompt) for prompt in body.prompts]
        self._check_number(len(prompts) * body.n)
        return [(task, prompt, asked(body, prompt, self.model, self.settings)) for task, prompt in prompts]

    def _completion_prompt(self, prompt: str | list[int]) -> tuple[Task, Tokens]:
        tokenizer = self.model.tokenizer
        if isinstance(prompt, str) and (problem := text_problem(prompt)):
            raise Refused(f"the prompt {problem}", param="prompt")
        tokens = tuple(tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt)
        if not tokens:
            raise Refused("the prompt is empty: give at least one token", param="prompt")
        if not all(0 <= token < len(tokenizer) for token in tokens):
            raise Refused(f"the prompt has a token that the model does not have: ids are 0 to {len(tokenizer) - 1}", param="prompt")
        return Task(prompt if isinstance(prompt, str) else tokenizer.decode(prompt)), tokens

    def _check_number(self, samples: int) -> None:
        if samples > self.settings.max_samples:
            raise Refused(f"{samples} samples: this server gives {self.settings.max_samples} a request at most", param="n")

    # ------------------------------------------------------------------ prompts → choices

    def begin(self, body: Common, items: list[Item], *, streams: bool) -> Work:
        """Begin to answer. Raises Refused if too many requests wait."""
        work = Work(Inbox(len(items) * body.n, streams=streams))
        try:
            self.model.begin(work, items, body.n)
        except Refused:
            work.cancel()
            raise
        return work

    async def choices(self, http: Request, body: Common, items: list[Item]) -> list[Choice]:
        """Answer prompts; the work ends if the client leaves."""
        work = self.begin(body, items, streams=False)
        try:
            await unless_gone(http, _drained(work.inbox))
        finally:
            work.cancel()
        return work.inbox.choices

    def count(self, items: Sequence[Item], choices: Sequence[Choice]) -> dict[str, int]:
        """Return the usage of a request, and count it."""
        read, written = sum(len(prompt) for _, prompt, _ in items), sum(choice.num_tokens for choice in choices)
        self.metrics.prompt_tokens.inc(read)
        self.metrics.tokens.inc(written)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _drained(inbox: Inbox) -> None:
    async with aclosing(inbox.pieces()) as pieces:  # type: ignore[type-var]
        async for _ in pieces:
            pass


async def unless_gone(http: Request, work: Awaitable[Found]) -> Found:
    """Wait for a result; if the client leaves before, cancel the work. Raises ClientGone."""
    task = asyncio.ensure_future(work)
    while not task.done():
        await asyncio.wait([task], timeout=_LOOK_SECONDS)
        if not task.done() and await http.is_disconnected():
            task.cancel()
            raise ClientGone
    return task.result()


def finish_of(finish: Any) -> str:
    """Return the reason of an end in OpenAI's words."""
    return "stop" if finish == "stop" else "length"
