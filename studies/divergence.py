"""How far practice moved a model: KL(after || before) on the tasks that it practised on, in nats an answer.

The mean of log pi(y) - log pi_0(y) over answers y that the practised model pi samples, pi_0 the model that practice began with, both read
by the same pass at the sampling temperature: an unbiased estimate. Forgetting goes with it, whatever the method (arXiv 2509.04259).
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from etude.explore.order import batch_at
from etude.explore.samples import sample_groups
from etude.feedback.outcome import OutcomeFeedback
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.recipes.checkpoints import load_checkpoint
from etude.recipes.practice import Practice
from etude.recipes.settings import PracticeSettings
from etude.runs import RunFolder
from etude.watching import Quiet

_TASKS, _SAMPLES = 64, 2


def divergence(settings: PracticeSettings, folder: Path, data: Path | None) -> float:
    """Of the finished run in `folder`, whose last checkpoint is still there; 0 where practice made no step."""
    kept = RunFolder(folder)
    last = kept.checkpoints("step-")
    if not last:
        return 0.0
    with OutcomeFeedback(settings.timeout_seconds, is_isolated=settings.isolate_verifiers) as outcome:
        run = Practice(settings, "divergence", kept, data, outcome, Quiet())
        run.prepare()
    load_checkpoint(last[-1], run.model)
    run.engine.refresh(0)
    tasks, prompts = zip(*batch_at(0, run.exploring.items, _TASKS, settings.seed, "divergence"), strict=True)
    explore, names = settings.explore, (settings.seed, "divergence")
    how: dict[str, Any] = {"num_samples": _SAMPLES, "max_new_tokens": explore.max_new_tokens, "sampling": explore.sampling}
    groups = sample_groups(run.engine, tasks, prompts, **how, names=names)
    answers = [Example(attempt.prompt, attempt.own_tokens) for group in groups for attempt in group.attempts]
    after = _logprobs(run, answers)
    if settings.warm_start.steps:
        load_checkpoint(kept.checkpoint("warm_start"), run.model)
    else:
        run.prepare()
    before = _logprobs(run, answers)
    kept.release()
    return fmean(one - other for one, other in zip(after, before, strict=True))


def _logprobs(run: Practice, answers: list[Example]) -> list[float]:
    """Of whole answers, under the run's model as it is now."""
    temperature = run.settings.explore.sampling.temperature
    return [sum(own) for own in completion_logprobs(run.model, answers, run.place.dtype, temperature=temperature)]
