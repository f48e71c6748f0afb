"""Forward KL divergence of a model from the start of practice, on the new task: KL(start || now).

    mean over answers y sampled from the start model of  log pi_start(y) - log pi_now(y)      in nats per answer

This is an unbiased estimate; both terms come from the same pass at the sampling temperature. RL's Razor (Shenfeld et al. 2025, arXiv
2509.04259) finds that forgetting is a function of this number for any method. The answers are sampled before the first step and saved in
the run folder: those to evaluation tasks for the final result, and those to training tasks for the gate, which decides during training and
so must not use the evaluation. The interval is over tasks. Identity: an unchanged model has 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from etude.engine.protocols import Engine, PrefixEngine
from etude.engine.sampling import Sampling
from etude.evaluation.statistics import mean_interval
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.randomness import seed_for

Answers = list[list[Example]]
"""Answers by task, with the start model's log-probs as `reference_logprobs`."""


@dataclass(frozen=True)
class StartSampling:
    """How answers of the start model are sampled and scored."""

    num_samples: int
    max_new_tokens: int
    sampling: Sampling
    seed: int
    dtype: torch.dtype


def answers_of_start(
    engine: PrefixEngine, model: Any, prompts: Sequence[tuple[int, ...]], how: StartSampling
) -> list[list[dict[str, Any]]]:
    """Sample answers of the current model to each prompt, with their log-probs, as rows of JSON."""
    sizes = {"num_samples": how.num_samples, "max_new_tokens": how.max_new_tokens}
    found = sampled(engine, prompts, **sizes, sampling=how.sampling, seed=how.seed)
    return as_rows(with_start(model, found, how.dtype, how.sampling.temperature))


def sampled(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
) -> Answers:
    """Sample answers of an engine's model to each prompt."""
    keys = [[seed_for(seed, "start answers", place, sample) for sample in range(num_samples)] for place in range(len(prompts))]
    found = engine.generate(prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, sampling=sampling, keys=keys)
    return [[Example(prompt, each.tokens) for each in row if each.tokens] for prompt, row in zip(prompts, found, strict=True)]


def with_start(model: Any, answers: Answers, dtype: torch.dtype, temperature: float) -> Answers:
    """Add the log-probs under the model that sampled the answers."""
    values = iter(_logprobs(model, answers, dtype, temperature))
    return [[Example(each.prompt, each.completion, reference_logprobs=next(values)) for each in row] for row in answers]


def forward_divergence(model: Any, answers: Answers, dtype: torch.dtype, temperature: float) -> dict[str, Any]:
    """Compute the `forward_kl` of a model in nats per answer, with its 95 % interval over tasks, and the numbers of tasks and answers."""
    values = iter(_logprobs(model, answers, dtype, temperature))
    by_task = [fmean([sum(each.reference_logprobs or ()) - sum(next(values)) for each in row]) for row in answers if row]
    low, high = mean_interval(by_task)
    return {
        "forward_kl": fmean(by_task),
        "forward_kl_low": low,
        "forward_kl_high": high,
        "n": len(by_task),
        "answers": sum(map(len, answers)),
    }


def as_rows(answers: Answers) -> list[list[dict[str, Any]]]:
    """Convert answers for a JSON file; floats are restored to the same bits."""
    return [
        [{"prompt": each.prompt, "completion": each.completion, "logprobs": each.reference_logprobs} for each in row] for row in answers
    ]


def from_rows(rows: Sequence[Sequence[dict[str, Any]]]) -> Answers:
    return [
        [Example(tuple(each["prompt"]), tuple(each["completion"]), reference_logprobs=tuple(each["logprobs"])) for each in row]
        for row in rows
    ]


def _logprobs(model: Any, answers: Answers, dtype: torch.dtype, temperature: float) -> list[tuple[float, ...]]:
    return completion_logprobs(model, [each for row in answers for each in row], dtype, temperature=temperature)
