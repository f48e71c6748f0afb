"""Decodes questions by a method, in parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from etude.decoding.methods import METHODS
from etude.decoding.sample_pool import DecodedAnswer, SamplePool
from etude.decoding.settings import ReliableDecoding
from etude.engine.completion import Completion
from etude.engine.protocols import PrefixEngine
from etude.models.embedding import load_embedder
from etude.rollouts.order import visits
from etude.tasks.task import Task


@dataclass(frozen=True)
class DecodingResult:
    """The answer to a question, its samples and its cost."""

    answer: DecodedAnswer
    samples: tuple[Completion, ...]
    """The samples of the method, and those of `num_samples`."""
    sampled_tokens: int
    """Tokens of the samples and of the answer."""


def decode(
    engine: PrefixEngine,
    items: Sequence[tuple[Task, tuple[int, ...]]],
    how: ReliableDecoding,
    *,
    num_samples: int = 0,
    done: Callable[[list[DecodingResult]], None] | None = None,
    **asking: Any,
) -> list[DecodingResult]:
    """Answer each task, given with its prompt, by an active method.

    Each task gets at least `num_samples` samples, even if the method needs fewer. `done` receives each part as soon as it is answered.
    `asking` has the arguments of `SamplePool` other than the samples. The engine's positions limit how many questions are decoded at once.
    """
    again = visits(task.key for task, _ in items)
    method, longest = METHODS[how.method], max(len(prompt) for _, prompt in items)
    options, embed = how.options, load_embedder(how.embedder) if how.by_meaning else None
    each = max(how.k, num_samples) * (2 * longest + 3 * asking["max_new_tokens"])
    parts = max(1, len(items) // max(2, engine.batch_tokens // each))  # at least two questions in a part, if there are two
    found: list[DecodingResult] = []
    for start, end in pairwise(len(items) * number // parts for number in range(parts + 1)):
        some = items[start:end]
        sources = [task for task, _ in some], [prompt for _, prompt in some]
        pool = SamplePool(engine, *sources, samples=how.sampling, embed=embed, visits=again[start:end], **asking)
        pool.samples(num_samples)
        answers = method.answer(pool, **options)
        part = list(map(DecodingResult, answers, pool.completions(), pool.sampled_tokens))
        pool.release()
        found += part
        if done:
            done(part)
    return found
