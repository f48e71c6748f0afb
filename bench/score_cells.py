"""The cells of `bench.time_to_score`: a seed's warm start, and the curve of each practice from it.

DIR/cells/WHO-SEED.json     what a cell found, with the settings that it was computed from
DIR/warm-start-SEED/        the run that made the warm start, with its weights
"""

import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peer import Peer, Running
from bench.practising import COMPARABLE, Ours, Practising, Theirs, their_settings
from bench.rollout import OURS
from etude.console.reporter import Silent
from etude.errors import UserError
from etude.evaluation.measure import Suite, measure
from etude.recipes.measuring import measurement
from etude.recipes.practice import Practice
from etude.recipes.settings import PracticeSettings, parse_practice, practice_defaults
from etude.rewards.outcome import OutcomeFeedback
from etude.settings.configuration import arguments_from, find_configuration, resolved
from etude.tasks.sources import load_tasks
from etude.training.checkpoints import load_checkpoint
from etude.training.run_folder import RunFolder, environment
from studies.cells import Cell, Options

WARM_START = "warm-start"
FLOAT32 = "trl-float32"
PEERS = {name: Peer("trl_practice.py", ".venv-trl") for name in ("trl-tuned", FLOAT32)}
SAMPLES = 4
"""Answers to each item that is measured."""
SPARE_ITEMS = 32
"""Drawn beside those that are measured, for the few that may stand in the test suite."""
TEST_ITEMS = 1000


@dataclass(frozen=True)
class Plan:
    """What is practised, how long, and how it is measured: a table of cells."""

    recipe: str
    steps: int
    every: int
    """Steps between two measurements; the last step is measured in any case."""
    items: int
    precision: str
    hardware: str

    def practice(self, seed: int) -> PracticeSettings:
        """The recipe with settings that TRL can share: one update a step, the learning rate falling to about a tenth."""
        measured = {"split": "dev", "n": self.items + SPARE_ITEMS, "pass_n": self.items, "num_samples": SAMPLES}
        changes = COMPARABLE | {f"evaluation.{name}": value for name, value in measured.items()}
        changes |= {"seed": seed, "steps": self.steps, "learn.optimiser.decay_steps": round(1.1 * self.steps), "checkpoint_every": 0}
        changes |= {"retention.probe": False, "machine.device": "cpu", "machine.precision": self.precision}
        return parse_practice(find_configuration("practice", self.recipe), arguments_from(changes))

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return resolved(self.practice(seed)) | {"items": self.items, "measured_every": self.every}

    def defaults(self) -> dict[str, Any]:
        return practice_defaults()

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """A practice's curve, or the warm start's weights and score."""
        settings, warm_start = self.practice(seed), chosen.out / f"{WARM_START}-{seed}"
        weights = warm_start / "checkpoints" / "warm_start"
        with OutcomeFeedback(settings.timeout_seconds) as outcome, ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = RunFolder(warm_start if arm == WARM_START else scratch / "run")
            run = Practice(settings, self.recipe, folder, None, outcome, Silent())
            if arm == WARM_START:
                shutil.rmtree(warm_start, ignore_errors=True)  # what a kill left
                run.prepare()
                run.warm_start()
                found = _score(run, dev_suite(run, self.items))
                folder.release()
            else:
                run.prepare()
                practising = begun(arm, run, weights, scratch, stack)
                start = json.loads((chosen.out / "cells" / f"{WARM_START}-{seed}.json").read_text())
                found = self._curve(f"{arm}, seed {seed}", run, practising, start) | {"versions": practising.versions}
        return found | {"commit": environment()["commit"], "hardware": self.hardware}

    def _curve(self, name: str, run: Practice, practising: Practising, start: Cell) -> dict[str, Any]:
        """Scores after so many steps and seconds of them, from the warm start's score on."""
        suite, step_seconds = dev_suite(run, self.items), []
        curve: dict[str, list[float]] = {"steps": [0], "seconds": [0.0], "score": [start["score"]], "greedy": [start["greedy"]]}
        for step in range(1, self.steps + 1):
            step_seconds.append(practising.step(step))
            if step % self.every == 0 or step == self.steps:
                practising.show()
                point = {"steps": step, "seconds": sum(step_seconds), **_score(run, suite)}
                print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in point.items()), flush=True)
                for key, value in point.items():
                    curve[key].append(value)
        return curve | {"step_seconds": step_seconds}


def begun(arm: str, run: Practice, weights: Path, scratch: Path, stack: ExitStack) -> Practising:
    """A practice that has made no step yet; `stack` ends the process that it may run in."""
    if not weights.exists():
        raise UserError(f"the warm start in {weights} is gone: remove its cell too, and it is made again")
    load_checkpoint(weights, run.model)
    run.engine.refresh(0)
    if arm == OURS:
        return Ours(run)
    settings = their_settings(run, weights, scratch, keeps_float32=arm == FLOAT32)
    return Theirs(run, stack.enter_context(Running(PEERS[arm], settings)), scratch)


def dev_suite(run: Practice, items: int) -> Suite:
    """What the run is measured on: none of it stands in the test suite, nor in training (`etude.recipes.materials.gather`)."""
    (suite,) = run.suites
    tested = {task.key for task in load_tasks(run.settings.tasks, split="test", n=TEST_ITEMS, seed=run.settings.seed)}
    kept = [place for place, task in enumerate(suite.tasks) if task.key not in tested][:items]
    return Suite(suite.name, [suite.tasks[place] for place in kept], [suite.prompts[place] for place in kept], suite.baselines)


def _score(run: Practice, suite: Suite) -> dict[str, float]:
    row = measure(run.engine, suite, measurement(run.settings), run.outcome.judge)["row"]
    return {"score": row["sampled_accuracy"], "greedy": row["accuracy"]}
