"""A run in progress, of practice or adaptation: its stages, checkpoints, logs, hold and rollback.

`open_run` opens and closes the run folder; `Run` is the common base class.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from etude.console.reporter import Reporter
from etude.device.limits import within_limits
from etude.device.machine import Device
from etude.engine.protocols import PrefixEngine
from etude.evaluation.report import write_report
from etude.learn.learner import Learner
from etude.rewards.unscored import TooManyUnscored
from etude.settings.configuration import to_plain_values
from etude.training.checkpoints import Stateful, load_checkpoint, save_checkpoint
from etude.training.interrupted import add_resume_note
from etude.training.interruption import Interrupted, Interruption
from etude.training.ledger import Ledger
from etude.training.run_folder import RunFolder, read_progress
from etude.training.stage import Stage


@dataclass
class Opened:
    """A run folder that this process may write to."""

    folder: RunFolder
    interruption: Interruption
    result: dict[str, Any] | None = None
    """The result, if the run was finished except for its report, which exists now."""


@contextmanager
def open_run(
    path: Path, settings: Any, *, defaults: Mapping[str, Any], resume: bool, pages: Callable[[Path], list[Path]] = lambda run: [run]
) -> Iterator[Opened]:
    """Open the folder of a new run, or with `resume` of an unfinished one, with its lock, limits and signal handlers.

    `defaults` are the settings' defaults by dotted name; `pages` gives the folders that the report shows. Raises UserError.
    """
    folder = RunFolder(path)
    result = folder.read_json("result.json") if resume else None
    if result and not (path / "report.html").exists():  # killed between its last two writes
        write_report(pages(path), path / "report.html")
        yield Opened(folder, Interruption(), result)
        return
    folder = RunFolder.start(path, to_plain_values(settings), resume=resume, defaults=defaults)
    limits = within_limits(settings.machine, "go on with --resume, the last checkpoint is whole", folder.read_json("environment.json"))
    try:
        with limits, Interruption() as interruption:
            yield Opened(folder, interruption)
    except Interrupted as stop:
        add_resume_note(stop, folder)
        raise
    except TooManyUnscored as problem:
        if folder.is_begun:
            folder.let_be_repaired("the verifier ")
            raise TooManyUnscored(f"{problem}. Nothing is lost: then go on with --resume ({folder.path})") from problem
        raise
    finally:
        folder.release()


@dataclass
class Run:
    """A model that is trained in stages."""

    settings: Any
    name: str
    folder: RunFolder
    data_folder: Path | None
    reporter: Reporter
    interruption: Interruption
    place: Device = field(init=False)
    model: Any = field(init=False)
    tokenizer: Any = field(init=False)
    engine: PrefixEngine | None = field(default=None, init=False)
    state: dict[str, Stateful] = field(default_factory=dict, init=False)
    """State in checkpoints besides the model and the optimizer, by name."""
    survives_rollback: set[str] = field(default_factory=set, init=False)
    """Names of states that a rollback does not restore."""
    held: int | None = field(default=None, init=False)
    """The step that a rollback restores; None before the first hold."""
    is_over: bool = field(default=False, init=False)
    """Whether the last stage ends before its last step."""

    @property
    def seed(self) -> int:
        return int(self.settings.seed)

    def log(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Log the metrics of a step, and report them."""
        self.folder.append("metrics.jsonl", {"phase": phase, "step": step, **metrics})
        self.folder.append("timings.jsonl", {"phase": phase, "step": step, **{name: round(value, 3) for name, value in timings.items()}})
        self.reporter.step(phase, step, metrics, timings)

    def once(self, file: str, make: Callable[[], Any]) -> Any:
        """Return the value of a JSON file of the run, written by `make` if it is missing."""
        found = self.folder.read_json(file)
        if found is None:
            self.folder.write_json(file, found := make())
        return found

    # ------------------------------------------------------------------ stages

    def learn(
        self,
        phase: str,
        steps: int,
        *,
        kind: str,
        ends_at: int,
        make: Callable[[], Learner],
        prepare: Callable[[int], Any],
        update: Callable[[Learner, Any], dict[str, float]],
        page: str | None = None,
    ) -> None:
        """Train a stage before the last one: run `update` on what `prepare` returns for every step, and keep the last checkpoint as
        `phase`.
        """
        if self.folder.checkpoint(phase).exists():
            load_checkpoint(self.folder.checkpoint(phase), self.model)
        else:
            learner = make()

            def learn(step: int, prepared: Any) -> None:
                start = time.perf_counter()
                if self.engine:
                    self.engine.offload_weights()
                metrics = update(learner, prepared)
                self.log(phase, step, metrics, {"learn_seconds": time.perf_counter() - start})

            sizes: dict[str, Any] = {"order": ends_at - steps, "total": steps, "every": self.settings.save_steps, "saves_last": False}
            self.train(Stage(phase=phase, kind=kind, page=page or phase, prepare=prepare, update=learn, **sizes), learner)
            self.save_checkpoint(phase, None, {"order": ends_at})
        if self.engine:
            self.engine.sync_weights(0)
        for unfinished in self.folder.checkpoints(kind):
            shutil.rmtree(unfinished)

    def train(self, stage: Stage, learner: Learner, ledger: Ledger | None = None, *, begin: Callable[[], None] = lambda: None) -> None:
        """Load the stage's last checkpoint, if there is one, and run the remaining steps; `ledger` holds steps without a checkpoint.

        `begin` is called in between, after the log was cut to the checkpoint.
        """
        found, done = self.folder.checkpoints(stage.kind), 0
        if found:
            progress = load_checkpoint(found[-1], self.model, self._stateful(learner))
            done, self.is_over = progress["step"], bool(progress.get("is_over"))
            if self.engine:
                self.engine.sync_weights(done)
            self.folder.prune(stage.kind, keep=self.keep, spare=self._spared())  # a kill may have left too many
        if lacking := self.folder.cut_after(stage.phase, done):
            self.reporter.say(lacking)
        begin()
        if done < stage.total and not self.is_over:  # stale: the model will be trained further
            (self.folder.path / "evaluation" / f"{stage.page}.json").unlink(missing_ok=True)
        kept = [step for step in ledger.steps() if step > done] if ledger else []
        if done or kept:
            again = f"; the attempts of steps {kept[0]} to {kept[-1]} are kept" if kept else ""
            place = found[-1] if found else "no checkpoint yet"
            self.reporter.say(f"{stage.name}: going on from step {done} of {stage.total} ({place}){again}")

        def save(done: int) -> None:
            if self.held != done:  # a held step is saved already
                self.save_step(stage, learner, done)
            if ledger:
                ledger.forget(read_progress(self.folder.checkpoints(stage.kind)[0])["step"])

        stage.train(done, save, self.reporter, self.interruption, lambda: self.is_over)

    def save_step(self, stage: Stage, learner: Learner, done: int) -> None:
        """Write the checkpoint of a step."""
        progress = {"order": stage.order + done, "step": done} | ({"is_over": True} if self.is_over else {})
        self.save_checkpoint(f"{stage.kind}{done:05d}", learner, progress)

    def save_checkpoint(self, name: str, learner: Learner | None, progress: Mapping[str, Any]) -> None:
        """Write a checkpoint of the model and all state."""
        options: dict[str, Any] = {"keep": self.keep, "spare": self._spared(), "save": self.save_model}
        state = self._stateful(learner) if learner else {}
        save_checkpoint(self.folder, name, self.model, state, progress, **options)

    def save_model(self, folder: Path) -> None:
        """Write the model as a plain Hugging Face folder."""
        raise NotImplementedError

    @property
    def keep(self) -> int:
        """Number of checkpoints kept per stage."""
        return 1

    # ------------------------------------------------------------------ hold and roll back

    def hold(self, step: int, stage: Stage, learner: Learner) -> None:
        """Keep the model after `step` as the target of rollbacks, whatever `save_total_limit` says."""
        self.held = step  # before saving, since the checkpoint stores it
        self.save_step(stage, learner, step)

    def rollback(self, stage: Stage, learner: Learner) -> None:
        """Restore the policy, the optimizer and other state from the held checkpoint.

        Step numbers continue, so that random numbers after a rollback differ from those before it.
        """
        assert self.held is not None, "nothing is held: hold the model that the stage begins with"
        found = {name: part for name, part in self._stateful(learner).items() if name not in (*self.survives_rollback, "run")}
        load_checkpoint(self.folder.checkpoint(f"{stage.kind}{self.held:05d}"), self.model, found)
        if self.engine:
            self.engine.sync_weights(self.engine.policy_version)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the held step."""
        return {} if self.held is None else {"held": torch.tensor(self.held)}

    def load_state_dict(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.held = int(tensors["held"]) if "held" in tensors else None

    def _stateful(self, learner: Learner) -> dict[str, Stateful]:
        return {"optimizer": learner, **self.state, "run": self}

    def _spared(self) -> str | None:
        """Return the held checkpoint, which is not pruned."""
        return None if self.held is None else f"step-{self.held:05d}"


def rows_of(folder: RunFolder, phase: str) -> Sequence[dict[str, Any]]:
    """Return the metrics of a phase's steps so far."""
    return [row for row in folder.log_rows("metrics.jsonl") if row["phase"] == phase]
