"""How far practice moved a model on the new task, as seen from where it began: KL(start || now).

    mean over answers y that the model which practice began with samples of  log pi_start(y) - log pi_now(y)      in nats an answer

an unbiased estimate; both are read by the same pass at the sampling temperature. RL's Razor (Shenfeld et al. 2025, arXiv 2509.04259) finds
that forgetting is a function of this number, whatever the method was. The answers are drawn before the first step and kept in the run
folder: those to evaluation tasks for what a run tells in the end (`start_answers.json`), those to tasks that it practises on for its gate,
which decides in training and so reads nothing of the evaluation (`gate_answers.json`). The interval is over tasks. Identity: a model that
was not moved has 0.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch

from etude.engine.protocols import Engine
from etude.engine.sampling import Sampling
from etude.evaluation.statistics import mean_interval
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.randomness import seed_for
from etude.recipes.measuring import measurement
from etude.rollouts.order import batch_at

if TYPE_CHECKING:
    from etude.recipes.practice import Practice

FILE, GATE_FILE = "start_answers.json", "gate_answers.json"

Answers = list[list[Example]]
"""By task, with the start's log-probs as `reference_logprobs`."""


def start_answers(run: "Practice") -> Answers:
    """The answers to evaluation tasks of the run's model as it is now, before practice, or those that were drawn then; [] where it is
    off.
    """
    prompts = [prompt for suite in run.suites for prompt in suite.prompts][: run.settings.retention.divergence_n]
    num_samples, max_new_tokens = run.settings.evaluation.num_samples, measurement(run.settings).max_new_tokens
    return _drawn_once(run, FILE, prompts, num_samples, max_new_tokens) if prompts else []


def practised_answers(run: "Practice") -> Answers:
    """The same of tasks that the run practises on, one answer to each, as its gate needs them; [] where it goes by old knowledge alone."""
    settings, gate, items = run.settings, run.settings.retention.gate, run.exploring.items
    if gate.max_divergence is None:
        return []
    prompts = [prompt for _, prompt in batch_at(1, items, min(gate.divergence_n, len(items)), settings.seed, "gate")]
    return _drawn_once(run, GATE_FILE, prompts, 1, settings.explore.max_new_tokens)


def _drawn_once(run: "Practice", file: str, prompts: Sequence[tuple[int, ...]], num_samples: int, max_new_tokens: int) -> Answers:
    settings, kept = run.settings, run.folder.read_json(file)
    if kept is None:
        how: dict[str, Any] = {"num_samples": num_samples, "max_new_tokens": max_new_tokens, "sampling": settings.explore.sampling}
        found = sampled(run.engine, prompts, **how, seed=settings.seed)
        kept = as_rows(with_start(run.model, found, run.place.dtype, settings.explore.sampling.temperature))
        run.folder.write_json(file, kept)
    return from_rows(kept)


def moved_from_start(run: "Practice", answers: Answers) -> dict[str, Any]:
    """What `forward_divergence` is of the run's model as it is now."""
    return forward_divergence(run.model, answers, run.place.dtype, run.settings.explore.sampling.temperature)


def sampled(
    engine: Engine,
    prompts: Sequence[tuple[int, ...]],
    *,
    num_samples: int,
    max_new_tokens: int,
    sampling: Sampling,
    seed: int,
) -> Answers:
    """Answers of an engine's model to each prompt."""
    keys = [[seed_for(seed, "start answers", place, sample) for sample in range(num_samples)] for place in range(len(prompts))]
    found = engine.generate(prompts, num_samples=num_samples, max_new_tokens=max_new_tokens, sampling=sampling, keys=keys)
    return [[Example(prompt, each.tokens) for each in row if each.tokens] for prompt, row in zip(prompts, found, strict=True)]


def with_start(model: Any, answers: Answers, dtype: torch.dtype, temperature: float) -> Answers:
    """The answers with their log-probs under the model that gave them."""
    values = iter(_logprobs(model, answers, dtype, temperature))
    return [[Example(each.prompt, each.completion, reference_logprobs=next(values)) for each in row] for row in answers]


def forward_divergence(model: Any, answers: Answers, dtype: torch.dtype, temperature: float) -> dict[str, Any]:
    """`forward_kl` of a model in nats an answer, with its interval (95 %) over tasks, their number and that of the answers."""
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
    """For a JSON file; floats are read back to the same bits."""
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
