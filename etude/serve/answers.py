"""A request's prompt → its choices: text, end and log-probs, as they come or when all are there."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from etude.decoding.decode import decode
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Device, Machine
from etude.engine.completion import Tokens
from etude.engine.continuous import Ended, Likely, Request, likely
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.kv_cache.settings import KVCacheSettings
from etude.randomness import seed_for
from etude.serve.scheduler import Scheduler
from etude.suites.retention_probe import logprobs_of
from etude.tasks.task import Task

_POSITIONS = 256
"""Positions of a prompt whose log-probs are normalised together: those of the whole vocabulary are large."""


@dataclass
class Choice:
    """An answer to a prompt."""

    text: str = ""
    likely: list[Likely] = field(default_factory=list)
    finish: Ended | None = None
    num_tokens: int = 0


@dataclass(frozen=True)
class Piece:
    """What a token, or the end, adds to a choice."""

    sample: int
    text: str
    likely: Likely | None = None
    finish: Ended | None = None
    num_tokens: int = 0


class Inbox:
    """Receives what the engine's thread tells, for a coroutine. Without `streams`, only whole choices are handed over."""

    def __init__(self, num_samples: int, *, streams: bool) -> None:
        self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue[Piece | Exception]()
        self.choices = [Choice() for _ in range(num_samples)]
        self._streams = streams

    def token(self, sample: int, text: str, found: Likely | None) -> None:
        choice = self.choices[sample]
        choice.text += text
        if found is not None:
            choice.likely.append(found)
        if self._streams and (text or found):
            self._tell(Piece(sample, text, found))

    def end(self, sample: int, text: str, finish: Ended, num_tokens: int) -> None:
        choice = self.choices[sample]
        choice.text, choice.finish, choice.num_tokens = choice.text + text, finish, num_tokens
        self._tell(Piece(sample, text, None, finish, num_tokens))

    def fail(self, error: Exception) -> None:
        self._tell(error)

    def _tell(self, piece: Piece | Exception) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what comes, until all choices have ended. Raises what the request failed with."""
        left = len(self.choices)
        while left:
            piece = await self._queue.get()
            if isinstance(piece, Exception):
                raise piece
            left -= piece.finish is not None
            yield piece


@dataclass(frozen=True)
class Way:
    """How a request is answered."""

    sampling: Sampling
    max_new_tokens: int
    stop: tuple[str, ...]
    top: int | None
    """Number of most likely tokens to tell; None: no log-probs."""
    decoding: ReliableDecoding
    kv_cache: KVCacheSettings
    seed: int

    @property
    def is_plain(self) -> bool:
        """Whether it is answered in the batch with others."""
        return not self.decoding.is_on and not self.kv_cache.is_on


@dataclass(frozen=True)
class Model:
    """The served model."""

    name: str
    model: Any
    tokenizer: Any
    engine: PrefixEngine
    place: Device
    scheduler: Scheduler

    def keys(self, way: Way, first: int, n: int) -> tuple[int, ...]:
        """Return the keys of samples: with a seed the same whenever they are asked for."""
        return tuple(seed_for(way.seed, "serve", first + sample) for sample in range(n))

    def begin(self, prompt: Tokens, way: Way, keys: tuple[int, ...], *, streams: bool) -> tuple[Inbox, Request]:
        """Queue a plain request."""
        inbox = Inbox(len(keys), streams=streams)
        request = Request(prompt, keys, way.max_new_tokens, way.sampling, inbox, way.stop, way.top)
        self.scheduler.submit(request)
        return inbox, request

    def decoded(self, task: Task, prompt: Tokens, way: Way) -> Choice:
        """Answer by a method of decoding; runs on the engine's thread. A method that abstains gives an empty answer."""
        room = self.engine.positions - way.max_new_tokens
        asking: dict[str, Any] = {"max_new_tokens": way.max_new_tokens, "sampling": way.sampling, "stop_strings": way.stop}
        asking |= {"room_tokens": room, "logprobs": logprobs_of(self.model, self.place, Machine()), "names": (way.seed, "serve")}
        (found,) = decode(self.engine, [(task, prompt)], way.decoding, **asking)
        return Choice(found.answer.text or "", finish=found.answer.finish, num_tokens=found.sampled_tokens)

    def viewed(self, prompt: Tokens, way: Way, keys: tuple[int, ...]) -> list[Choice]:
        """Answer under a cache policy; runs on the engine's thread."""
        view = way.kv_cache.build_view(self.tokenizer)
        how: dict[str, Any] = {"max_new_tokens": way.max_new_tokens, "sampling": way.sampling, "stop_strings": way.stop, "view": view}
        (found,) = self.engine.generate([prompt], keys=[keys], **how)
        return [Choice(each.text, finish=each.finish, num_tokens=len(each.tokens)) for each in found]

    @torch.inference_mode()
    def echoed(self, prompt: Tokens, top: int) -> list[Likely]:
        """Return the log-probs of a prompt's tokens after its first, by the weights in float32; runs on the engine's thread."""
        logits_TV = self.model(input_ids=torch.tensor([prompt], device=self.model.device), use_cache=False).logits[0, :-1]
        found: list[Likely] = []
        for start, part_TV in enumerate(logits_TV.split(_POSITIONS)):
            after = prompt[start * _POSITIONS + 1 :]
            found += [likely(logprobs_V, token, top) for logprobs_V, token in zip(part_TV.float().log_softmax(-1), after, strict=False)]
        return found


def token_text(tokenizer: Any, token: int) -> str:
    """Return the text of one token, special ones included."""
    return str(tokenizer.decode([token], skip_special_tokens=False))


def chat_logprobs(tokenizer: Any, found: Sequence[Likely]) -> dict[str, Any]:
    """Return log-probs as /v1/chat/completions writes them."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = token_text(tokenizer, token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [entry(each.token, each.logprob) | {"top_logprobs": [entry(*pair) for pair in each.top]} for each in found],
        "refusal": None,
    }


def completion_logprobs(tokenizer: Any, found: Sequence[Likely | None], tokens: Sequence[int], start: int = 0) -> dict[str, Any]:
    """Return log-probs as /v1/completions writes them; None is the first token of a prompt, which follows nothing.

    Two tokens may have one text (halves of characters): the likelier one stands for it.
    """
    texts, offsets = [token_text(tokenizer, token) for token in tokens], []
    for text in texts:
        offsets.append(start)
        start += len(text)
    tops = [None if each is None else {token_text(tokenizer, token): logprob for token, logprob in reversed(each.top)} for each in found]
    return {
        "tokens": texts,
        "token_logprobs": [None if each is None else each.logprob for each in found],
        "top_logprobs": tops,
        "text_offset": offsets,
    }
