"""What a practice run will take here: one step of each kind is made, in a folder that is thrown away, and multiplied.

Practice is opened as a run opens it, so that whatever a run has beside its policy is there, and what the run measures is measured by the
run's own functions. Writing checkpoints takes time that is not counted.

The numbers are upper ones, since the model as it came often answers as long as it may, and the trial gives every group something to learn
from; a run's own steps are shorter on both counts.
"""

import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import torch

from etude.console.reporter import Silent
from etude.device.limits import within_limits
from etude.engine.sampling import GREEDY
from etude.evaluation.measure import Verify
from etude.learn.learner import Learner
from etude.learn.preference import Preferring
from etude.recipes.before_practice import comparisons_of, demonstrations_of
from etude.recipes.divergence import moved_from_start
from etude.recipes.keeping import begins_as
from etude.recipes.learners import preference_learner
from etude.recipes.measuring import known, measurement
from etude.recipes.practice import Practice
from etude.recipes.settings import PracticeSettings
from etude.rewards.outcome import OutcomeFeedback
from etude.rewards.verdict import Verdict
from etude.tasks.task import Task
from etude.training.checkpoints import learned
from etude.training.ledger import Judged
from etude.training.run_folder import RunFolder


@dataclass(frozen=True)
class Estimate:
    """Of a whole run: time by stage, the most memory at once, what the run folder grows to."""

    warm_start_seconds: float
    preference_seconds: float
    practice_seconds: float
    evaluation_seconds: float
    memory_bytes: int
    """Of the process; on a GPU, of the GPU."""
    disk_bytes: int

    @property
    def seconds(self) -> float:
        return self.warm_start_seconds + self.preference_seconds + self.practice_seconds + self.evaluation_seconds

    def __str__(self) -> str:
        seconds = {name: getattr(self, f"{name}_seconds") for name in ("warm_start", "preference", "practice", "evaluation")}
        stages = [f"{name} {minutes(value)}" for name, value in seconds.items() if value or name != "preference"]
        return (
            f"at most about {minutes(self.seconds)} here ({', '.join(stages)}), {self.memory_bytes / 1e9:.1f} GB of memory, "
            f"{self.disk_bytes / 1e9:.2g} GB of disk"
        )


def estimate(settings: PracticeSettings, name: str, data: Path | None) -> Estimate:
    """Try one update of the warm start, one step of practice and a few greedy answers of the run that `settings` describe, without an
    adaptation before it, which is not counted.
    """
    settings = replace(settings, adaptation=None, adaptation_settings={})
    with (
        within_limits(settings.machine),
        tempfile.TemporaryDirectory() as scratch,
        OutcomeFeedback(settings.timeout_seconds, isolate=settings.isolate_verifiers, right_at=settings.tasks.right_at) as outcome,
    ):
        run = Practice(settings, name, RunFolder(Path(scratch) / "run"), data, outcome, Silent())
        run.prepare()
        warm_start_seconds = settings.warm_start.steps * _seconds_of_warm_start(run) if settings.warm_start.steps else 0.0
        preference_seconds = settings.preferences.steps * _seconds_of_preference(run) if settings.preferences.steps else 0.0
        probe_seconds = _seconds_of_probe(run)
        start = time.perf_counter()
        learner = run.open_practice()
        once_seconds = time.perf_counter() - start
        once_seconds += seconds_of(partial(moved_from_start, run, run.start_answers)) if run.start_answers else 0.0
        gating, alarm, run.gating, run.alarm = run.gating, run.alarm, None, None  # which do not decide in a trial
        gate_seconds = ceil(settings.steps / gating.gate.settings.every) * seconds_of(gating.measure) if gating else 0.0
        judged = run.exploring.attempts_of(1, _right_at_last(settings.explore.turns))
        if run.exploring.self_teaching:
            judged = replace(judged, verdicts=[[Verdict(0.0)] * (len(row) - 1) + [Verdict(1.0)] for row in judged.verdicts])
        pairs = [(attempt.text, group.task) for group in judged.groups for attempt in group.attempts]
        judge_seconds = seconds_of(partial(outcome.judge, pairs))
        explore_seconds = (judged.seconds["explore_seconds"] + judge_seconds) * (2 if settings.explore.rationalise else 1)
        step_seconds = explore_seconds + seconds_of(partial(run.learn, 1, judged, learner))
        steps = _steps(settings, judged)
        answers = sum(attempt.turns for group in judged.groups for attempt in group.attempts)
        attempts_bytes = sum(path.stat().st_size for path in (run.folder.path / "attempts").glob("*"))
        return Estimate(
            warm_start_seconds,
            preference_seconds,
            steps * step_seconds + gate_seconds + (once_seconds if steps else 0.0),
            _stages(settings) * (_seconds_of_measuring(run, explore_seconds / answers) + probe_seconds),
            peak_memory_bytes(run.place.device),
            steps * attempts_bytes + _checkpoints_bytes(run, learner, holds=gating is not None or alarm is not None),
        )


def _right_at_last(turns: int) -> Verify:
    """Half of the attempts are right, from the last turn on, so that all have all turns."""
    calls = itertools.count(1)

    def judge(pairs: Sequence[tuple[str, Task]]) -> list[Verdict]:
        is_last = next(calls) >= turns
        return [Verdict(float(is_last and index % 2)) for index in range(len(pairs))]

    return judge


def seconds_of(action: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _steps(settings: PracticeSettings, judged: Judged) -> int:
    """Of practice at most: a step that is like this one spends so much of what may be sampled."""
    if settings.budget_tokens is None:
        return settings.steps
    own = sum(attempt.num_own_tokens for group in judged.groups for attempt in group.attempts)
    return min(settings.steps, ceil(settings.budget_tokens / judged.counts.get("sampled_tokens", own)))


def _seconds_of_warm_start(run: Practice) -> float:
    run.engine.put_away()
    seconds = seconds_of(partial(run.warm_start_learner().update, demonstrations_of(run, 1)))
    run.engine.refresh(0)
    return seconds


def _seconds_of_preference(run: Practice) -> float:
    run.engine.put_away()
    learner, pairs = preference_learner(run.model, run.settings, run.place.dtype), comparisons_of(run, 1)
    seconds = seconds_of(lambda: Preferring(learner, pairs, run.settings.preferences).update(pairs))
    run.engine.refresh(0)
    return seconds


def _seconds_of_probe(run: Practice) -> float:
    """Of what the model knows of old, once; kept as the measurement that a gate compares with."""
    if run.probe is None:
        return 0.0
    start = time.perf_counter()
    page = {"retention": known(run, run.probe)}
    seconds = time.perf_counter() - start
    run.folder.write_json(f"evaluation/{begins_as(run.settings)}.json", page)
    return seconds


def _seconds_of_measuring(run: Practice, sample_seconds: float) -> float:
    """Of all suites once: some greedy answers are timed, samples take what an answer of the step took."""
    how, explore = measurement(run.settings), run.settings.explore
    prompts = run.suites[0].prompts[: explore.tasks_per_step]
    greedy = seconds_of(partial(run.engine.generate, prompts, max_new_tokens=how.max_new_tokens, sampling=GREEDY)) / len(prompts)
    sampled = sample_seconds * how.max_new_tokens / explore.max_new_tokens
    sizes = [len(suite.prompts) for suite in run.suites]
    return sum(greedy * n + sampled * min(n, how.pass_n) * how.num_samples for n in sizes)


def _stages(settings: PracticeSettings) -> int:
    """How many models are measured: as it came, after the warm start, after preferences, after practice."""
    return 1 + (settings.warm_start.steps > 0) + (settings.preferences.steps > 0) + (settings.steps > 0)


def _checkpoints_bytes(run: Practice, learner: Learner, *, holds: bool) -> int:
    """Weights of the final model, of the stages before practice and of the checkpoints kept, one more while it is written, one that a gate
    or an alarm holds; and with these all that a checkpoint holds beside the weights.
    """
    settings = run.settings
    if settings.learn.preference.refresh_every and learner.reference is not None:
        learner.refresh_reference()  # as a run does sooner or later, which has its checkpoints hold it
    weights = sum(parameter.nbytes for parameter in run.model.parameters())
    beside = sum(tensor.nbytes for tensor in learned(run.model, learner, run.beside).values())
    kept = settings.keep_checkpoints + 1 + holds if settings.steps else 0
    own = sum(parameter.nbytes for parameter in run.step_model.parameters) if run.step_model else 0
    before = (settings.warm_start.steps > 0) + (settings.preferences.steps > 0)
    return weights * (1 + before + kept) + beside * kept + own


def peak_memory_bytes(device: str) -> int:
    """The most at once so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def minutes(seconds: float) -> str:
    """A time as a person says it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
