"""Estimate a practice run on this machine: run one step of each kind with the run's own loop, in a temporary folder, and multiply.

The loop runs with all its callbacks, so that all their work is counted. A callback's decision takes time every few steps (`Callback.every`)
and is counted that often. Writing checkpoints is not counted.

The numbers are upper bounds: the initial model often answers at full length, and the trial gives every group signal. A run's own steps are
shorter on both counts.
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
from etude.evaluation.report.number_format import duration
from etude.learn.preference import Preferring
from etude.recipes.practice import Loop
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.callback import CONTINUE, Callback
from etude.training.callback_list import CallbackList
from etude.training.checkpoints import tensors_of
from etude.training.interruption import Interruption
from etude.training.learners import preference_learner, warm_start_learner
from etude.training.measuring import measurement
from etude.training.parse import callbacks_of
from etude.training.practice_run import PracticeRun
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from etude.training.stages import comparisons_of, demonstrations_of


@dataclass(frozen=True)
class Estimate:
    """Estimate of a whole run: seconds by stage, peak memory, size of the run folder."""

    warm_start_seconds: float
    preference_seconds: float
    practice_seconds: float
    evaluation_seconds: float
    memory_bytes: int
    """Memory of the process; on a GPU, of the GPU."""
    disk_bytes: int

    @property
    def seconds(self) -> float:
        return self.warm_start_seconds + self.preference_seconds + self.practice_seconds + self.evaluation_seconds

    def __str__(self) -> str:
        seconds = {name: getattr(self, f"{name}_seconds") for name in ("warm_start", "preference", "practice", "evaluation")}
        stages = [f"{name} {duration(value)}" for name, value in seconds.items() if value or name != "preference"]
        return (
            f"at most about {duration(self.seconds)} here ({', '.join(stages)}), {self.memory_bytes / 1e9:.1f} GB of memory, "
            f"{self.disk_bytes / 1e9:.2g} GB of disk"
        )


def estimate(settings: PracticeSettings, name: str, data: Path | None) -> Estimate:
    """Run one update of the warm start, one step of practice and a few greedy answers with `settings`. An adaptation before practice is not
    counted.
    """
    trial, steps = replace(settings, adaptation=None, adaptation_settings={}, steps=min(settings.steps, 1)), settings.steps
    with (
        within_limits(trial.machine),
        tempfile.TemporaryDirectory() as scratch,
        VerifierReward(trial.timeout_seconds, isolate=trial.isolate_verifiers, right_at=trial.tasks.right_at) as verifiers,
    ):
        folder = RunFolder(Path(scratch) / "run")
        run = PracticeRun(trial, name, folder, data, Silent(), Interruption(), verifiers=verifiers)
        loop = Loop(run, CallbackList(callbacks_of(trial)))
        loop.prepare()
        warm_start_seconds = trial.warm_start.steps * _seconds_of_warm_start(run) if trial.warm_start.steps else 0.0
        preference_seconds = trial.preferences.steps * _seconds_of_preference(run) if trial.preferences.steps else 0.0
        probe_seconds = _seconds_of_probe(run)
        step = _seconds_of_steps(loop, steps) if steps else _Steps(0.0, 0.0, 0, 0, 0.0)
        return Estimate(
            warm_start_seconds,
            preference_seconds,
            step.seconds,
            _stages(trial) * (_seconds_of_measuring(run, step.answer_seconds) + probe_seconds),
            peak_memory_bytes(run.place.device),
            step.attempts_bytes + _checkpoints_bytes(loop),
        )


@dataclass(frozen=True)
class _Steps:
    """Costs of all steps of practice."""

    seconds: float
    answer_seconds: float
    """Seconds per answer."""
    number: int
    attempts_bytes: int
    once_seconds: float


def _seconds_of_steps(loop: Loop, steps: int) -> _Steps:
    """Run one step of the run's own loop, with all callbacks' decisions ignored, and multiply it."""
    run = loop.run
    start = time.perf_counter()
    loop.start()
    once = time.perf_counter() - start
    run.sampler.judge, run.sampler.begin = _right_at_last(run.settings.rollout.turns), None
    batch = loop.rollout(1)
    if run.settings.reward == "self_training":
        batch.rewards = [[Reward(0.0)] * (len(row) - 1) + [Reward(1.0)] for row in batch.rewards]
    pairs = [(attempt.text, group.task) for group in batch.groups for attempt in group.attempts]
    rollout = batch.seconds["rollout_seconds"] + seconds_of(partial(run.verifiers.judge, pairs))
    rollout *= 1 + sum(callback.more_attempts for callback in loop.callbacks)
    spent = {callback.name: _Timed(callback) for callback in loop.callbacks}
    learn = seconds_of(partial(loop.update, 1, batch)) - sum(timed.seconds for timed in spent.values())
    number = _number_of_steps(loop, batch, steps)
    decide = sum(ceil(number / timed.callback.every) * timed.seconds for timed in spent.values())
    once += sum(seconds_of(callback.finish) for callback in loop.callbacks)
    answers = sum(attempt.turns for group in batch.groups for attempt in group.attempts)
    attempts_bytes = sum(path.stat().st_size for path in (run.folder.path / "attempts").glob("*"))
    return _Steps(number * (rollout + learn) + decide + once, rollout / answers, number, number * attempts_bytes, once)


class _Timed:
    """Times a callback's decision and replaces it by none."""

    def __init__(self, callback: Callback) -> None:
        self.callback, self.seconds, self._decide = callback, 0.0, callback.decide
        callback.decide = self.decide  # type: ignore[method-assign]

    def decide(self, *given: Any, **named: Any) -> Any:
        start = time.perf_counter()
        _, metrics = self._decide(*given, **named)
        self.seconds = time.perf_counter() - start
        return CONTINUE, metrics


def _right_at_last(turns: int) -> Verify:
    """Return a verifier that accepts half of the attempts, but only in the last turn, so that all attempts have all turns."""
    calls = itertools.count(1)

    def judge(pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
        is_last = next(calls) >= turns
        return [Reward(float(is_last and index % 2)) for index in range(len(pairs))]

    return judge


def seconds_of(action: Callable[[], Any]) -> float:
    """Return how long an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _number_of_steps(loop: Loop, batch: RolloutBatch, steps: int) -> int:
    """Return the most steps that practice makes, if every step uses as much of a token budget as this one."""
    budgets = [callback.settings.tokens for callback in loop.callbacks if callback.name == "token_budget"]
    return min(steps, *(ceil(tokens / batch.sampled_tokens) for tokens in budgets)) if budgets else steps


def _seconds_of_warm_start(run: PracticeRun) -> float:
    run.engine.offload_weights()
    learner = warm_start_learner(run.model, run.settings, run.place.dtype)
    seconds = seconds_of(partial(learner.update, demonstrations_of(run, 1)))
    run.engine.sync_weights(0)
    return seconds


def _seconds_of_preference(run: PracticeRun) -> float:
    run.engine.offload_weights()
    learner, pairs = preference_learner(run.model, run.settings, run.place.dtype), comparisons_of(run, 1)
    seconds = seconds_of(lambda: Preferring(learner, pairs, run.settings.preferences).update(pairs))
    run.engine.sync_weights(0)
    return seconds


def _seconds_of_probe(run: PracticeRun) -> float:
    """Time the retention probe once; its page is kept, since a gate compares with it."""
    if run.probe is None:
        return 0.0
    start = time.perf_counter()
    page = {"retention": run.known()}
    seconds = time.perf_counter() - start
    run.folder.write_json(f"evaluation/{run.begins_as}.json", page)
    return seconds


def _seconds_of_measuring(run: PracticeRun, sample_seconds: float) -> float:
    """Estimate the evaluation of all suites: time some greedy answers, and scale the step's time per answer for samples."""
    how, rollout = measurement(run.settings), run.settings.rollout
    prompts = run.data.suites[0].prompts[: rollout.tasks_per_step]
    greedy = seconds_of(partial(run.engine.generate, prompts, max_new_tokens=how.max_new_tokens, sampling=GREEDY)) / len(prompts)
    sampled = sample_seconds * how.max_new_tokens / rollout.max_new_tokens
    sizes = [len(suite.prompts) for suite in run.data.suites]
    return sum(greedy * n + sampled * min(n, how.pass_n) * how.num_samples for n in sizes)


def _stages(settings: PracticeSettings) -> int:
    """Return how many models are evaluated: the initial one, after the warm start, after preferences, after practice."""
    return 1 + (settings.warm_start.steps > 0) + (settings.preferences.steps > 0) + (settings.steps > 0)


def _checkpoints_bytes(loop: Loop) -> int:
    """Return the bytes of the final model, the stages before practice, the kept checkpoints, one more during writing, and a held one.
    Checkpoints count with all their state besides the weights.
    """
    run, settings = loop.run, loop.run.settings
    weights = sum(parameter.nbytes for parameter in run.model.parameters())
    before = (settings.warm_start.steps > 0) + (settings.preferences.steps > 0)
    if not settings.steps:
        return weights * (1 + before)
    if settings.learn.preference.ref_model_sync_steps and run.learner.reference is not None:
        run.learner.refresh_reference()  # as in a run, after which its checkpoints hold it
    state = {"optimizer": run.learner, **run.state}
    beside = sum(tensor.nbytes for tensor in tensors_of(run.model, state).values())
    kept = settings.save_total_limit + 1 + loop.callbacks.can_roll_back
    saved = sum(callback.saved_bytes for callback in loop.callbacks)
    return weights * (1 + before + kept) + beside * kept + saved


def peak_memory_bytes(device: str) -> int:
    """Return the peak memory so far."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
