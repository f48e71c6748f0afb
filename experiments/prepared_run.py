"""Prepare a practice run for a study or a benchmark: engine, model, prompts and folder of a recipe, before its first step.

This is the only file of studies, benchmarks and `experiments` that knows what a practice run is made of.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.console.reporter import Reporter, Silent
from etude.device.machine import Device
from etude.engine.protocols import PrefixEngine
from etude.evaluation.measure import Suite, Verify
from etude.learn.example import Example
from etude.learn.learner import Learner
from etude.recipes.practice import Loop
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.batch import RolloutBatch
from etude.tasks.task import Task
from etude.training import run as training
from etude.training.callback_list import CallbackList
from etude.training.interruption import Interruption
from etude.training.learners import warm_start_learner
from etude.training.parse import callbacks_of
from etude.training.practice_run import PracticeRun
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from etude.training.stages import demonstrations_of, warm_start

Prompt = tuple[int, ...]
WRITES_CHECKPOINTS = (training, "save_checkpoint")
"""The module and the name by which a run writes a checkpoint, for a benchmark that times it there."""


@dataclass
class PreparedRun:
    """A practice run whose model and tasks are loaded, and which has made no step."""

    settings: PracticeSettings
    folder: RunFolder
    engine: PrefixEngine
    model: Any
    tokenizer: Any
    place: Device
    room_tokens: int
    """Tokens that a prompt may have."""
    items: Sequence[tuple[Task, Prompt]]
    """The tasks of practice with their prompts."""
    suites: Sequence[Suite]
    judge: Verify
    """Scores the answers of evaluations."""
    _loop: Loop
    _is_started: bool = False

    def warm_start(self) -> None:
        """Imitate the demonstrations, as the recipe does before its first step."""
        warm_start(self._loop.run)

    def warm_start_learner(self) -> Learner:
        """Return the learner of the warm start."""
        return warm_start_learner(self.model, self.settings, self.place.dtype)

    def demonstrations(self, step: int) -> list[Example]:
        """Return what the warm start imitates in a step."""
        return demonstrations_of(self._loop.run, step)

    def start(self) -> Loop:
        """Begin practice with the model as it is now, once."""
        if not self._is_started:
            self._loop.start()
            self._is_started = True
        return self._loop

    def learner(self) -> Learner:
        """Return the learner of practice, which begins with the model as it is when practice begins."""
        return self.start().run.learner

    def tasks_of(self, step: int) -> Sequence[tuple[Task, Prompt]]:
        """Return the tasks of a step with their prompts."""
        return self._loop.run.data.batch(step, self.settings.rollout.tasks_per_step, self.settings.seed)

    def rollout(self, step: int) -> RolloutBatch:
        """Sample the attempts of a step and score them."""
        return self.start().rollout(step)

    def update(self, step: int, batch: RolloutBatch) -> None:
        """Learn from the attempts of a step, and log it."""
        self.start().update(step, batch)

    def practise(self) -> None:
        """Make all steps of the recipe."""
        loop = self.start()
        loop.run.train(loop.stage, loop.run.learner, loop.ledger, begin=loop.run.read_history)


@contextmanager
def prepared_run(
    settings: PracticeSettings, name: str, folder: RunFolder, data: Path | None = None, reporter: Reporter | None = None
) -> Iterator[PreparedRun]:
    """Load tasks, verifier and model of a recipe called `name`; the run folder begins. The verifier's process ends with the block."""
    with VerifierReward(settings.timeout_seconds, isolate=settings.isolate_verifiers, right_at=settings.tasks.right_at) as verifiers:
        run = PracticeRun(settings, name, folder, data, reporter or Silent(), Interruption(), verifiers=verifiers)
        loop = Loop(run, CallbackList(callbacks_of(settings)))
        loop.prepare()
        parts = {name: getattr(run, name) for name in ("engine", "model", "tokenizer", "place", "room_tokens")}
        found: dict[str, Any] = {"items": run.data.items, "suites": run.data.suites, "judge": run.judge}
        yield PreparedRun(settings, folder, **parts, **found, _loop=loop)
