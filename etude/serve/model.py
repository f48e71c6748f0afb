"""The served model: how a request is answered, and by what on the engine's thread."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from etude.decoding.answering import answers
from etude.decoding.way import Way
from etude.device.machine import Device, Machine
from etude.engine.completion import Tokens
from etude.engine.continuous import Likely, Receiver, Request, likely
from etude.engine.protocols import PrefixEngine
from etude.kv_cache.settings import KVCacheSettings
from etude.randomness import seed_for
from etude.rollouts.search.growing import Value
from etude.serve.answers import Inbox, PromptReceiver
from etude.serve.scheduler import Scheduler
from etude.suites.retention_probe import logprobs_of
from etude.tasks.task import Task

_POSITIONS = 256
"""Positions of a prompt whose log-probs are normalised together: those of the whole vocabulary are large."""


@dataclass(frozen=True)
class Asked:
    """What a request asks of the answers to a prompt."""

    way: Way
    top: int | None
    """Number of most likely tokens to tell; None: no log-probs."""
    kv_cache: KVCacheSettings
    seed: int

    @property
    def name(self) -> str:
        """The setting that makes it be answered alone, and its value; empty if it is answered in the batch with others."""
        return self.way.name or (f"kv_cache.policy {self.kv_cache.policy}" if self.kv_cache.is_on else "")


Item = tuple[Task, Tokens, Asked]
"""A prompt of a request: as a task, as token ids, and what is asked of its answers."""


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
    step_value: Callable[[], Value] | None = None
    """Returns the function that values nodes of a search by the model's step model; None: it has none."""

    def begin(self, work: Work, items: list[Item], n: int) -> None:
        """Begin to answer prompts with `n` samples each; with a seed they are the same whenever they are asked for."""
        for place, (task, prompt, asked) in enumerate(items):
            first, way = place * n, asked.way
            receiver = PromptReceiver(work.inbox, first)
            keys = tuple(seed_for(asked.seed, "serve", first + sample) for sample in range(n))
            if asked.name:
                work.jobs.append(self.scheduler.run(self._alone(task, prompt, asked, keys, receiver), receiver))
            else:
                work.requests.append(Request(prompt, keys, way.max_new_tokens, way.sampling, receiver, way.stop, asked.top))
                self.scheduler.submit(work.requests[-1])

    def _alone(self, task: Task, prompt: Tokens, asked: Asked, keys: tuple[int, ...], receiver: Receiver) -> Callable[[], None]:
        """Return a job that answers by a method, a search, after a thought, or under a cache policy."""

        def job() -> None:
            how: dict[str, Any] = {"logprobs": logprobs_of(self.model, self.place, Machine()), "names": (asked.seed, "serve")}
            how["by_step_model"] = self.step_value() if self.step_value and asked.way.search.needs_step_model else None
            how["view"] = asked.kv_cache.build_view(self.tokenizer)
            (found,) = answers(self.engine, [(task, prompt)], asked.way, keys=[keys], **how)
            for sample, each in enumerate(found):
                receiver.end(sample, each.text, each.finish, each.num_tokens)

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
