"""Prepare a practice run for a study or a benchmark: engine, model, prompts and folder of a recipe, before its first step.

This is the only file of studies, benchmarks and `experiments` that knows what a practice run is made of.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.console.watching import Quiet, Watcher
from etude.device.machine import Place
from etude.engine.transformers import TransformersEngine
from etude.evaluation.measure import Judge, Suite
from etude.learn.example import Example
from etude.learn.learner import Learner
from etude.recipes import practice
from etude.recipes.before_practice import demonstrations_of
from etude.recipes.practice import Practice
from etude.recipes.settings import PracticeSettings
from etude.rewards.outcome import OutcomeFeedback
from etude.tasks.task import Task
from etude.training.ledger import Judged
from etude.training.run_folder import RunFolder

Prompt = tuple[int, ...]
WRITES_CHECKPOINTS = (practice, "save_checkpoint")
"""The module and the name by which a run writes a checkpoint, for a benchmark that times it there."""


@dataclass
class PreparedRun:
    """A practice run whose model and tasks are loaded, and which has made no step."""

    settings: PracticeSettings
    folder: RunFolder
    engine: TransformersEngine
    model: Any
    tokenizer: Any
    place: Place
    room_tokens: int
    """Tokens that a prompt may have."""
    items: Sequence[tuple[Task, Prompt]]
    """The tasks of practice with their prompts."""
    suites: Sequence[Suite]
    judge: Judge
    """The verifier of the recipe."""
    _practice: Practice

    def warm_start(self) -> None:
        """Imitate the demonstrations, as the recipe does before its first step."""
        self._practice.warm_start()

    def warm_start_learner(self) -> Learner:
        """Return the learner of the warm start."""
        return self._practice.warm_start_learner()

    def demonstrations(self, step: int) -> list[Example]:
        """Return what the warm start imitates in a step."""
        return demonstrations_of(self._practice, step)

    def learner(self) -> Learner:
        """Return the learner of practice, which begins with the model as it is now."""
        return self._practice.practice_learner()

    def tasks_of(self, step: int) -> Sequence[tuple[Task, Prompt]]:
        """Return the tasks of a step with their prompts."""
        return self._practice.exploring.tasks_of(step)

    def rollout(self, step: int) -> Judged:
        """Sample the attempts of a step and score them."""
        return self._practice.exploring.attempts_of(step, self.judge)

    def update(self, step: int, judged: Judged, learner: Learner) -> None:
        """Learn from the attempts of a step, and log it."""
        self._practice.learn(step, judged, learner)

    def practise(self) -> None:
        """Make all steps of the recipe."""
        self._practice.practise()


@contextmanager
def prepared_run(
    settings: PracticeSettings, name: str, folder: RunFolder, data: Path | None = None, watcher: Watcher | None = None
) -> Iterator[PreparedRun]:
    """Load tasks, verifier and model of a recipe called `name`; the run folder begins. The verifier's process ends with the block."""
    with OutcomeFeedback(settings.timeout_seconds, isolate=settings.isolate_verifiers) as outcome:
        run = Practice(settings, name, folder, data, outcome, watcher or Quiet())
        run.prepare()
        names = ("engine", "model", "tokenizer", "place", "room_tokens", "suites")
        parts = {name: getattr(run, name) for name in names}
        yield PreparedRun(settings, folder, **parts, items=run.exploring.items, judge=outcome.judge, _practice=run)
