"""Soundness of an answer: whether it says something about the request, by the likelihood of a model that was not trained on the rules.

    fluency   mean over the answer's tokens of log p(token | request)                     nats a token
    topic     log p(answer | request) - log p(answer | another request)                       nats

The request is the task without its rules (`metadata["subject"]`, else the whole question), so that an answer is not likely only because
it repeats them. An answer of noise is not fluent. An answer that would do for every request has a topic near 0: it is the pointwise mutual
information of answer and request, with one other request as the sample of the marginal. The thresholds refuse what says nothing; they lie
far below the start model's own answers and do not rank styles.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from etude.engine.completion import Logprobs, Tokens
from etude.tasks.task import Task

MIN_FLUENCY = -5.5
"""Nats a token."""
MIN_TOPIC = 2.0
"""Nats."""


class Soundness(NamedTuple):
    """The two measures of an answer; an answer without tokens has -inf."""

    fluency: float
    topic: float

    def problem(self, min_fluency: float = MIN_FLUENCY, min_topic: float = MIN_TOPIC) -> str | None:
        """Return `fluency` or `topic` if that measure is below its threshold; None for a sound answer.

        >>> Soundness(-1.4, 25.0).problem(), Soundness(-8.3, -0.9).problem(), Soundness(-1.1, -0.2).problem()
        (None, 'fluency', 'topic')
        """
        if self.fluency < min_fluency:
            return "fluency"
        return "topic" if self.topic < min_topic else None


def request_of(task: Task) -> Task:
    """Return the task without its rules."""
    subject = task.metadata.get("subject", task.question)
    if isinstance(task.prompt, str):
        return replace(task, prompt=subject)
    return replace(task, prompt=(*task.prompt[:-1], {**task.prompt[-1], "content": subject}))


def soundness(
    requests: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], logprobs: Logprobs, spare: Sequence[Tokens] = ()
) -> list[list[Soundness]]:
    """Measure the answers to each request; the other request is the next one with another text, in a circle, then the first of `spare`.

    `requests` are prompts as token ids, `answers` the answers to each. Raises ValueError if all requests are the same, spare ones included.
    """
    pairs = [(request, answer) for request, own in zip(requests, answers, strict=True) for answer in own if answer]
    against = [(other, answer) for other, own in zip(_others(requests, spare), answers, strict=True) for answer in own if answer]
    found = iter(list(zip(logprobs(pairs), logprobs(against), strict=True)))
    return [[_measured(*next(found)) if answer else Soundness(float("-inf"), float("-inf")) for answer in own] for own in answers]


def _measured(own: Sequence[float], other: Sequence[float]) -> Soundness:
    return Soundness(sum(own) / len(own), sum(own) - sum(other))


def _others(requests: Sequence[Tokens], spare: Sequence[Tokens]) -> list[Tokens]:
    """Return for each request the next one that differs."""
    if len({*requests, *spare}) < 2:
        raise ValueError("soundness compares an answer's request with another one, and all requests are the same")
    circle = [*requests, *requests, *spare]
    return [next(other for other in circle[place + 1 :] if other != request) for place, request in enumerate(requests)]
