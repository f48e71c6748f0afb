"""A training stage that can be interrupted between any two steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etude.console.reporter import Reporter
from etude.training.interruption import Interrupted, Interruption


@dataclass(frozen=True)
class Stage:
    """The steps of a stage, and when it is saved."""

    phase: str
    """`warm_start`, `preference` or `practice`: its name in the logs."""
    kind: str
    """Prefix of its checkpoints' names."""
    order: int
    """Its offset among all checkpoints: the stages before practice count up to 0, practice on from there."""
    page: str
    """The name of its model's page among the run's measurements."""
    total: int
    """Steps."""
    every: int
    """Steps between checkpoints; 0: none on the way."""
    saves_last: bool
    """Whether the last step has a checkpoint whatever `every` says."""
    prepare: Callable[[int], Any]
    """Returns the data of a step, counted from 1; a signal may interrupt it."""
    update: Callable[[int, Any], None]
    """Learns from the data; a signal waits for its end."""

    @property
    def name(self) -> str:
        return self.phase.replace("_", " ")

    def train(
        self, done: int, save: Callable[[int], None], reporter: Reporter, interruption: Interruption, is_over: Callable[[], bool]
    ) -> None:
        """Run the steps after `done` until `is_over`; `save` gets the number of steps done, at intervals and when a signal ends the
        stage.
        """
        saved = done
        try:
            for before in reporter.steps(self.name, range(done, self.total), total=self.total):
                if is_over():
                    break
                step = before + 1
                prepared = self.prepare(step)
                with interruption.whole():
                    self.update(step, prepared)
                    done = step
                    if (self.saves_last and done == self.total) or (self.every and done % self.every == 0):
                        save(done)
                        saved = done
            if self.saves_last and saved < done:
                with interruption.whole():
                    save(done)
        except Interrupted as stop:
            interruption.acknowledge()
            with interruption.whole():
                if saved < done:
                    save(done)
            stop.note = f"after {self.name} step {done} of {self.total}"
            raise
