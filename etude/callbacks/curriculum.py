"""Choose a step's tasks by the policy's results: its weaknesses, or levels that follow success (`etude.rollouts.curriculum`)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.curriculum import Curriculum, CurriculumSettings
from etude.settings.unused import Read
from etude.tasks.families import curriculum_levels
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun


class CurriculumCallback(Callback):
    """Samples tasks and observes every step's groups; its state is all visits and the level."""

    name, Settings = "curriculum", CurriculumSettings
    unit_rewards = "takes 1 - reward for a failure"
    panels = (
        Panel(
            "Curriculum",
            "share of the tasks that were visited",
            {
                "curriculum/pool_hard": "hard: right in a quarter at most",
                "curriculum/pool_medium": "medium",
                "curriculum/pool_easy": "easy: right in over three quarters",
            },
        ),
        Panel("Level", "of difficulty", {"curriculum/level": "level"}),
    )
    reads = (
        Read(("category", "memory"), "method", ("weakness",)),
        Read(("level_groups", "raise_at", "lower_at"), "method", ("levels",)),
    )
    excludes = (Excludes("reward", "set it to majority_vote", "needs rewards that are shares of success", values=("self_training",)),)
    curriculum: Curriculum

    def check(self, settings: Mapping[str, Any]) -> None:
        if self.settings.method == "levels" and not settings["tasks.family"]:
            raise UserError("curriculum.method levels raises the parameters of a family: set tasks.family, or the method to weakness")

    def load_tasks(self, source: TaskSource, size: int | None, seed: int) -> list[Task] | None:
        """Return tasks of every level, about equally many, with the level in their metadata; None without levels."""
        if self.settings.method != "levels":
            return None
        assert source.family is not None and size is not None
        levels = self.settings.levels or curriculum_levels(source.family, self.settings.own_levels)
        found: dict[str, Task] = {}
        for number, changes in enumerate(levels):
            own = replace(source, parameters={**source.parameters, **changes})
            for task in load_tasks(own, split="train", n=-(-size // len(levels)), seed=seed):
                found.setdefault(task.key, replace(task, metadata={**task.metadata, "level": number}))
        return list(found.values())

    def prepare(self, run: "PracticeRun") -> None:
        tasks = run.settings.tasks
        if self.settings.method == "levels" and self.settings.own_levels and tasks.family:
            names = [name for name in curriculum_levels(tasks.family, self.settings.own_levels)[0] if name in tasks.parameters]
            if names:
                run.reporter.say(
                    f"curriculum.own_levels practises on {tasks.family}'s own {', '.join(names)}; demonstrations and evaluation have those "
                    "of tasks.parameters"
                )

    def start(self, run: "PracticeRun") -> None:
        self.curriculum = Curriculum([task for task, _ in run.data.items], self.settings, run.seed)

    def select_tasks(self, step: int, number: int) -> list[int]:
        return self.curriculum.draw(step, number)

    def after_update(self, batch: RolloutBatch) -> Metrics:
        groups = batch.groups[batch.given]
        own = [
            [reward for attempt, reward in zip(group.attempts, row, strict=True) if attempt.is_sample]
            for group, row in zip(groups, batch.rewards[batch.given], strict=True)
        ]
        return {f"curriculum/{name}": value for name, value in self.curriculum.observe(groups, own).items()}

    def state_dict(self) -> "dict[str, torch.Tensor]":
        return self.curriculum.state_dict()

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.curriculum.load_state_dict(tensors)
