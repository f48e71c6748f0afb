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

from bench.time_to_score.contestants import COMPARABLE, Ours, Practising, Theirs, their_settings
from etude.errors import UserError
from etude.evaluation.measure import Suite, measure
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, to_plain_values
from etude.tasks.sources import load_tasks
from etude.training.checkpoints import load_checkpoint
from etude.training.measuring import measurement
from etude.training.parse import parse_practice, practice_defaults
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from experiments.cells import Cell, Options, made_here
from experiments.peer import Peer, Running
from experiments.prepared_run import PreparedRun, prepared_run
from experiments.turns import OURS

WARM_START = "warm-start"
FLOAT32 = "trl-float32"
RECOMPUTED = "etude-recomputed"
"""etude with ratios to log-probs that its learner recomputes."""
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

    def practice(self, seed: int, arm: str = OURS) -> PracticeSettings:
        """Return the recipe with settings that TRL can share: one update a step, the learning rate falling to about a tenth."""
        measured = {"split": "dev", "n": self.items + SPARE_ITEMS, "pass_n": self.items, "num_samples": SAMPLES}
        changes = COMPARABLE | {f"evaluation.{name}": value for name, value in measured.items()}
        changes |= {
            "seed": seed,
            "steps": self.steps,
            "learn.optimizer.lr_scheduler": "linear",
            "learn.optimizer.decay_steps": round(1.1 * self.steps),
            "save_steps": 0,
        }
        changes |= {"retention.probe": False, "machine.device": "cpu", "machine.dtype": self.precision}
        if arm == RECOMPUTED:
            changes["learn.recompute_old_logprobs"] = True
        return parse_practice(find_configuration("practice", self.recipe), arguments_from(changes))

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return to_plain_values(self.practice(seed, arm)) | {"items": self.items, "measured_every": self.every}

    def defaults(self) -> dict[str, Any]:
        return practice_defaults()

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure a practice's curve, or make the warm start's weights and measure their score."""
        settings, warm_start = self.practice(seed, arm), chosen.out / f"{WARM_START}-{seed}"
        weights = warm_start / "checkpoints" / "warm_start"
        if arm == WARM_START:
            shutil.rmtree(warm_start, ignore_errors=True)  # what a kill left
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            folder = RunFolder(warm_start if arm == WARM_START else scratch / "run")
            run = stack.enter_context(prepared_run(settings, self.recipe, folder))
            if arm == WARM_START:
                run.warm_start()
                found = _score(run, dev_suite(run, self.items))
                folder.release()
            else:
                practising = begun(arm, run, weights, scratch, stack)
                start = json.loads((chosen.out / "cells" / f"{WARM_START}-{seed}.json").read_text())
                found = self._curve(f"{arm}, seed {seed}", run, practising, start) | {"versions": practising.versions}
        return found | made_here()

    def _curve(self, name: str, run: PreparedRun, practising: Practising, start: Cell) -> dict[str, Any]:
        """Measure scores after so many steps and seconds of them, from the warm start's score on."""
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


def begun(arm: str, run: PreparedRun, weights: Path, scratch: Path, stack: ExitStack) -> Practising:
    """Begin a practice, which has made no step yet; `stack` ends the process that it may run in."""
    if not weights.exists():
        raise UserError(f"the warm start in {weights} is gone: remove its cell too, and it is made again")
    load_checkpoint(weights, run.model)
    run.engine.sync_weights(0)
    if arm in (OURS, RECOMPUTED):
        return Ours(run)
    settings = their_settings(run, weights, scratch, keeps_float32=arm == FLOAT32)
    return Theirs(run, stack.enter_context(Running(PEERS[arm], settings)), scratch)


def dev_suite(run: PreparedRun, items: int) -> Suite:
    """Return the suite that the run is measured on, apart from the test suite and from training (`etude.training.data.load_data`)."""
    (suite,) = run.suites
    tested = {task.key for task in load_tasks(run.settings.tasks, split="test", n=TEST_ITEMS, seed=run.settings.seed)}
    kept = [place for place, task in enumerate(suite.tasks) if task.key not in tested][:items]
    return Suite(suite.name, [suite.tasks[place] for place in kept], [suite.prompts[place] for place in kept], suite.baselines)


def _score(run: PreparedRun, suite: Suite) -> dict[str, float]:
    row = measure(run.engine, suite, measurement(run.settings), run.judge)["row"]
    return {"score": row["sampled_accuracy"], "greedy": row["accuracy"]}
