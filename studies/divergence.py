"""How far practice moved a model, and what is left of its entropy, on the tasks that it practised on.

`divergence` is KL(after || before) in nats an answer: the mean of log pi(y) - log pi_0(y) over answers y that the practised model pi
samples, pi_0 the model that practice began with, both read by the same pass at the sampling temperature: an unbiased estimate. Forgetting
goes with it, whatever the method (arXiv 2509.04259). `entropy` is minus the mean of log pi over the tokens of the same answers, in nats a
token; independent samples, however practice explored.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from etude.console.reporter import Silent
from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.recipes.practice import Practice
from etude.recipes.settings import PracticeSettings
from etude.rewards.outcome import OutcomeFeedback
from etude.rollouts.order import batch_at
from etude.rollouts.samples import sample_groups
from etude.training.checkpoints import load_checkpoint
from etude.training.run_folder import RunFolder

FILE = "moved.json"
_TASKS, _SAMPLES = 64, 2


def moved(settings: PracticeSettings, folder: Path, data: Path | None) -> dict[str, float | None]:
    """`divergence` and `entropy` of the finished run in `folder`, whose last checkpoint is still there, or which was asked before; nothing
    is known of a run without a step.
    """
    kept = RunFolder(folder)
    before = kept.read_json(FILE)
    if before is None:
        before = _moved(settings, kept, data) if settings.steps else {"divergence": None, "entropy": None}
        kept.write_json(FILE, before)
    return before


def _moved(settings: PracticeSettings, kept: RunFolder, data: Path | None) -> dict[str, float | None]:
    last = kept.checkpoints("step-")
    with OutcomeFeedback(settings.timeout_seconds, isolate=settings.isolate_verifiers) as outcome:
        run = Practice(settings, "divergence", kept, data, outcome, Silent())
        run.prepare()
    load_checkpoint(last[-1], run.model)
    run.engine.refresh(0)
    tasks, prompts = zip(*batch_at(1, run.exploring.items, _TASKS, settings.seed, "divergence"), strict=True)
    explore, names = settings.explore, (settings.seed, "divergence")
    how: dict[str, Any] = {"num_samples": _SAMPLES, "max_new_tokens": explore.max_new_tokens, "sampling": explore.sampling}
    groups = sample_groups(run.engine, tasks, prompts, **how, names=names)
    answers = [Example(attempt.prompt, attempt.own_tokens) for group in groups for attempt in group.attempts]
    after = _logprobs(run, answers)
    begun = [name for name in ("preference", "warm_start") if kept.checkpoint(name).exists()]
    if begun:
        load_checkpoint(kept.checkpoint(begun[0]), run.model)
    else:
        run.prepare()
    before = _logprobs(run, answers)
    kept.release()
    return {
        "divergence": fmean(one - other for one, other in zip(after, before, strict=True)),
        "entropy": -sum(after) / sum(len(answer.completion) for answer in answers),
    }


def _logprobs(run: Practice, answers: list[Example]) -> list[float]:
    """Of whole answers, under the run's model as it is now."""
    temperature = run.settings.explore.sampling.temperature
    return [sum(own) for own in completion_logprobs(run.model, answers, run.place.dtype, temperature=temperature)]
