"""Measure how far practice moved a model, and what is left of its entropy, on the tasks that it practised on.

`divergence` is KL(now || start) in nats an answer: the mean of log pi(y) - log pi_0(y) over answers y that the practised model pi samples,
pi_0 the model that practice began with, both read by the same pass at the sampling temperature: an unbiased estimate. It is not the
divergence of the law of forgetting of arXiv 2509.04259: that is KL(start || now) on the new task, over answers of the start, which
`studies.retention` measures as `forward_kl`. The two are near each other only where the model moved little. `entropy` is minus the mean of
log pi over the tokens of the same answers, in nats a token; independent samples, however practice explored.
"""

from pathlib import Path
from statistics import fmean
from typing import Any

from etude.learn.example import Example
from etude.learn.logprobs import completion_logprobs
from etude.rollouts.order import batch_at
from etude.rollouts.samples import sample_groups
from etude.training.checkpoints import load_checkpoint
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from experiments.prepared_run import PreparedRun, prepared_run

FILE = "moved.json"
_TASKS, _SAMPLES = 64, 2


def divergence_of(settings: PracticeSettings, folder: Path, data: Path | None) -> dict[str, float | None]:
    """Return `divergence` and `entropy` of the finished run in `folder`, whose last checkpoint is still there or which was measured before;
    both are None where the run made no step.
    """
    kept = RunFolder(folder)
    before = kept.read_json(FILE)
    if before is None:
        before = _measured(settings, kept, data) if settings.steps else {"divergence": None, "entropy": None}
        kept.write_json(FILE, before)
    return before


def _measured(settings: PracticeSettings, kept: RunFolder, data: Path | None) -> dict[str, float | None]:
    with prepared_run(settings, "divergence", kept, data) as run:
        load_checkpoint(kept.checkpoints("step-")[-1], run.model)
        run.engine.sync_weights(0)
        tasks, prompts = zip(*batch_at(1, run.items, _TASKS, settings.seed, "divergence"), strict=True)
        rollout, names = settings.rollout, (settings.seed, "divergence")
        how: dict[str, Any] = {"num_samples": _SAMPLES, "max_new_tokens": rollout.max_new_tokens, "sampling": rollout.sampling}
        groups = sample_groups(run.engine, tasks, prompts, **how, names=names)
        answers = [Example(attempt.prompt, attempt.own_tokens) for group in groups for attempt in group.attempts]
        after = _logprobs(run, answers)
    with prepared_run(settings, "divergence", kept, data) as run:
        begun = [name for name in ("preference", "warm_start") if kept.checkpoint(name).exists()]
        if begun:
            load_checkpoint(kept.checkpoint(begun[0]), run.model)
        before = _logprobs(run, answers)
    kept.release()
    return {
        "divergence": fmean(one - other for one, other in zip(after, before, strict=True)),
        "entropy": -sum(after) / sum(len(answer.completion) for answer in answers),
    }


def _logprobs(run: PreparedRun, answers: list[Example]) -> list[float]:
    """Return the log-prob of each whole answer under the run's model as it is now."""
    temperature = run.settings.rollout.sampling.temperature
    return [sum(own) for own in completion_logprobs(run.model, answers, run.place.dtype, temperature=temperature)]
