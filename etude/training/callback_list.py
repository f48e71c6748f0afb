"""The callbacks of a run: each hook calls all of them, in the order of the table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from etude.errors import UserError
from etude.learn.example import Example
from etude.rollouts.batch import RolloutBatch
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task
from etude.training.callback import Callback, Decision, Metrics, joined
from etude.training.practice_run import PracticeRun


class CallbackList(list[Callback]):
    """The callbacks of a run; no two may report the same metric."""

    @property
    def num_reserved_tasks(self) -> int:
        """Number of training tasks that callbacks reserve for themselves."""
        return sum(callback.num_reserved_tasks for callback in self)

    @property
    def unit_rewards(self) -> dict[str, str]:
        """The callbacks that need rewards in [0, 1], with the reason."""
        return {callback.name: callback.unit_rewards for callback in self if callback.unit_rewards}

    @property
    def panels(self) -> list[dict[str, Any]]:
        """Return the charts of all callbacks, in the form of `panels.json`."""
        return [asdict(panel) for callback in self for panel in callback.panels]

    @property
    def can_roll_back(self) -> bool:
        """Whether any callback may ask for a rollback."""
        return any(callback.can_roll_back for callback in self)

    def load_tasks(self, source: TaskSource, size: int | None, seed: int) -> list[Task] | None:
        """Return the training tasks of the first callback that loads some."""
        return next((found for callback in self if (found := callback.load_tasks(source, size, seed)) is not None), None)

    def prepare(self, run: PracticeRun) -> None:
        """Let every callback load its files and tasks."""
        for callback in self:
            callback.prepare(run)

    def start(self, run: PracticeRun) -> None:
        """Start every callback, and register their states for checkpoints."""
        for callback in self:
            callback.start(run)
        run.state = {callback.name: callback for callback in self}
        run.survives_rollback = {callback.name for callback in self if not callback.rolls_back}

    def select_tasks(self, step: int, number: int) -> list[int] | None:
        """Return the indices of a step's tasks from the first callback that selects."""
        return next((found for callback in self if (found := callback.select_tasks(step, number)) is not None), None)

    def before_rollout(self, step: int) -> None:
        """Change how the step is sampled."""
        for callback in self:
            callback.before_rollout(step)

    def after_rollout(self, batch: RolloutBatch) -> None:
        """Change the step's groups."""
        for callback in self:
            callback.after_rollout(batch)

    def before_update(self, batch: RolloutBatch) -> Metrics:
        """Change the step's rewards, advantages and masks."""
        return self._metrics(callback.before_update(batch) for callback in self)

    def on_examples(self, batch: RolloutBatch) -> Callable[[list[list[Example]]], list[list[Example]]]:
        """Return a function that adds streams to the step's examples."""

        def add(examples: list[list[Example]]) -> list[list[Example]]:
            for callback in self:
                examples = callback.on_examples(batch, examples)
            return examples

        return add

    def extra_examples(self, step: int) -> Callable[[int], list[Example]]:
        """Return a function that gives additional examples for an update."""
        return lambda own_tokens: [each for callback in self for each in callback.extra_examples(step, own_tokens)]

    def after_update(self, batch: RolloutBatch) -> Metrics:
        """Train the models beside the policy."""
        return self._metrics(callback.after_update(batch) for callback in self)

    def decide(self, step: int, row: Metrics, history: Sequence[Mapping[str, Any]], *, is_last: bool) -> Decision:
        """Merge the decisions after a step, adding metrics to its `row`. After one stops, the step is the last for the next ones."""
        decisions = []
        for callback in self:
            decision, seen = callback.decide(step, {**row, "step": step}, history, is_last=is_last)
            decisions.append(decision)
            is_last = is_last or decision.stop
            row |= seen
        return joined(decisions)

    def on_rollback(self) -> None:
        """Tell every callback that the model is the held one again."""
        for callback in self:
            callback.on_rollback()

    def after_practice(self) -> None:
        """Let every callback change the model that the last step left."""
        for callback in self:
            callback.after_practice()

    def finish(self) -> dict[str, Any]:
        """Return the entries of `result.json` by callback name."""
        return {callback.name: found for callback in self if (found := callback.finish()) is not None}

    def sentences(self, result: Mapping[str, Any]) -> list[str]:
        """Return the console sentences for the results of `finish`."""
        found = (callback.sentence(result[callback.name]) for callback in self if callback.name in result)
        return [sentence for sentence in found if sentence]

    def save(self, run: PracticeRun) -> None:
        """Write files beside the final model."""
        for callback in self:
            callback.save(run)

    def _metrics(self, rows: Any) -> Metrics:
        found: Metrics = {}
        for callback, row in zip(self, rows, strict=True):
            if again := found.keys() & row.keys():
                raise UserError(
                    f"callback {callback.name} reports {min(again)}, which another one reports: name its metrics {callback.name}/..."
                )
            found |= row
        return found
