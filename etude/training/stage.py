"""A training stage that may be asked to end between any two steps: steps left in, checkpoints out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etude.console.reporter import Reporter
from etude.training.interruption import Interrupted, Interruption


@dataclass(frozen=True)
class Stage:
    """What a stage does in a step, and when it is saved."""

    phase: str
    """`warm_start`, `preference` or `practice`: what its rows in the logs are called."""
    kind: str
    """What the names of its checkpoints begin with."""
    order: int
    """Where it begins among all checkpoints: the stages before practice count up to 0, practice on from there."""
    page: str
    """The page of the run's measurements that its model is measured on."""
    total: int
    """Steps."""
    every: int
    """Steps between checkpoints; 0: none on the way."""
    saves_last: bool
    """Whether the last step has a checkpoint of this kind whatever `every` says."""
    prepare: Callable[[int], Any]
    """Makes what a step, counted from 1, learns from; a signal may end it."""
    update: Callable[[int, Any], None]
    """Learns from that, to the end."""

    @property
    def name(self) -> str:
        return self.phase.replace("_", " ")

    def train(
        self, done: int, save: Callable[[int], None], reporter: Reporter, interruption: Interruption, is_over: Callable[[], bool]
    ) -> None:
        """Make the steps after `done`, until `is_over`; `save` is called with the steps done, on the way and where a signal ends it."""
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
