"""The served model: how a request is answered, and by what on the engine's thread."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from etude.decoding.decode import decode
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Device, Machine
from etude.engine.completion import Tokens
from etude.engine.continuous import Likely, Receiver, Request, likely
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import Sampling
from etude.kv_cache.settings import KVCacheSettings
from etude.randomness import seed_for
from etude.serve.answers import Inbox, PromptReceiver
from etude.serve.scheduler import Scheduler
from etude.suites.retention_probe import logprobs_of
from etude.tasks.task import Task

_POSITIONS = 256
"""Positions of a prompt whose log-probs are normalised together: those of the whole vocabulary are large."""


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


Item = tuple[Task, Tokens, Way]
"""A prompt of a request: as a task, as token ids, and how it is answered."""


@dataclass
class Work:
    """A request that is being answered."""

    inbox: Inbox
    requests: list[Request] = field(default_factory=list)
    jobs: list[Future[None]] = field(default_factory=list)

    def cancel(self) -> None:
        """End what is decoded or waits; what has ended stays as it is."""
        for request in self.requests:
            request.is_cancelled = True
        for job in self.jobs:
            job.cancel()


@dataclass(frozen=True)
class Model:
    """A model with its engine."""

    name: str
    model: Any
    tokenizer: Any
    engine: PrefixEngine
    place: Device
    scheduler: Scheduler

    def begin(self, work: Work, items: list[Item], n: int) -> None:
        """Begin to answer prompts with `n` samples each; with a seed they are the same whenever they are asked for."""
        for place, (task, prompt, way) in enumerate(items):
            first = place * n
            receiver = PromptReceiver(work.inbox, first)
            keys = tuple(seed_for(way.seed, "serve", first + sample) for sample in range(n))
            if way.is_plain:
                work.requests.append(Request(prompt, keys, way.max_new_tokens, way.sampling, receiver, way.stop, way.top))
                self.scheduler.submit(work.requests[-1])
            else:
                job = self._decoded(task, prompt, way, receiver) if way.decoding.is_on else self._viewed(prompt, way, keys, receiver)
                work.jobs.append(self.scheduler.run(job, receiver))

    def _decoded(self, task: Task, prompt: Tokens, way: Way, receiver: Receiver) -> Callable[[], None]:
        """Return a job that answers by a method of decoding. A method that abstains gives an empty answer."""
        asking: dict[str, Any] = {"max_new_tokens": way.max_new_tokens, "sampling": way.sampling, "stop_strings": way.stop}
        asking |= {"room_tokens": self.engine.positions - way.max_new_tokens, "names": (way.seed, "serve")}

        def job() -> None:
            logprobs = logprobs_of(self.model, self.place, Machine())
            (found,) = decode(self.engine, [(task, prompt)], way.decoding, **asking, logprobs=logprobs)
            receiver.end(0, found.answer.text or "", found.answer.finish or "stop", found.sampled_tokens)

        return job

    def _viewed(self, prompt: Tokens, way: Way, keys: tuple[int, ...], receiver: Receiver) -> Callable[[], None]:
        """Return a job that answers under a cache policy."""
        how: dict[str, Any] = {"max_new_tokens": way.max_new_tokens, "sampling": way.sampling, "stop_strings": way.stop}

        def job() -> None:
            (found,) = self.engine.generate([prompt], keys=[keys], **how, view=way.kv_cache.build_view(self.tokenizer))
            for sample, each in enumerate(found):
                receiver.end(sample, each.text, each.finish, len(each.tokens))

        return job

    @torch.inference_mode()
    def echoed(self, prompt: Tokens, top: int) -> list[Likely]:
        """Return the log-probs of a prompt's tokens after its first, by the weights in float32; runs on the engine's thread."""
        logits_TV = self.model(input_ids=torch.tensor([prompt], device=self.model.device), use_cache=False).logits[0, :-1]
        found: list[Likely] = []
        for start, part_TV in enumerate(logits_TV.split(_POSITIONS)):
            after = prompt[start * _POSITIONS + 1 :]
            found += [likely(logprobs_V, token, top) for logprobs_V, token in zip(part_TV.float().log_softmax(-1), after, strict=False)]
        return found
