"""Calibrate the vote share from which a majority is trusted, on tasks with gold answers that are not practised on.

Every `every` steps the policy samples the labelled tasks. The least share s is chosen at which `target_precision` of the majorities with a
share of s or more are right (`etude.rewards.majority_vote.calibrated_vote_share`). After a rollback the tasks are sampled again, since the
share was that of a discarded model. The share is a note of the step's batch, so that a resumed run samples nothing twice.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import UserError, at_least
from etude.rewards.majority_vote import calibrated_vote_share
from etude.rollouts.attempts import Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.task import Task
from etude.tasks.votes import Tally, vote
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.evaluation.measure import Verify
    from etude.training.practice_run import PracticeRun

Items = Sequence[tuple[Task, tuple[int, ...]]]
"""Tasks with their prompts as token ids."""


@dataclass(frozen=True)
class VoteCalibrationSettings:
    """Calibration of the vote share at which reward majority_vote trusts a majority."""

    n: int
    """Tasks with gold answers, the first ones that no demonstration shows; they are not practised on."""
    every: int = 10
    """Steps between calibrations."""
    target_precision: float = 0.5
    """Share of the trusted majorities that must be right, in [0, 1]."""

    def __post_init__(self) -> None:
        at_least("vote_calibration.n", self.n, 1)
        at_least("vote_calibration.every", self.every, 1)
        if not 0.0 <= self.target_precision <= 1.0:
            raise UserError(f"vote_calibration.target_precision must be in [0, 1], got {self.target_precision}")


class VoteCalibration(Callback):
    """Sets the least vote share of reward majority_vote; its state is that share."""

    name, Settings, rolls_back = "vote_calibration", VoteCalibrationSettings, False
    excludes = (
        Excludes("callbacks.temperature_schedule", "leave temperature_schedule out", "asks tasks as they are asked at first"),
        Excludes("rollout.prompt_variants", "leave the variants out", "asks tasks as they are asked without variants"),
    )

    def __init__(self, settings: VoteCalibrationSettings) -> None:
        super().__init__(settings)
        self.labelled: Items = []
        self.share: float | None = None
        self._asked = (0, 0.0)
        """Tokens and seconds of the calibration before this step."""

    @property
    def num_reserved_tasks(self) -> int:
        return int(self.settings.n)

    def check(self, settings: Mapping[str, Any]) -> None:
        if settings["reward"] != "majority_vote" and "majority_vote" not in (settings.get("reward_weights") or {}):
            raise UserError("vote_calibration is for reward majority_vote: set reward to majority_vote, or leave vote_calibration out")
        if settings.get("callbacks.curriculum.method") == "levels":
            raise UserError("vote_calibration asks tasks of one difficulty, and curriculum.method levels changes it: leave one of them out")

    def prepare(self, run: "PracticeRun") -> None:
        self.labelled, run.data.items = without_labelled(run.data.items, self.settings.n, {task.key for task in run.data.shown})
        for task, _ in self.labelled:
            if task.answer is None:
                raise UserError(f"vote_calibration.n is {self.settings.n}, but {task.origin}, one of the first, has no answer")

    def start(self, run: "PracticeRun") -> None:
        assert run.reward.majority_vote is not None
        self.run, self.vote = run, run.reward.majority_vote

    def before_rollout(self, step: int) -> None:
        clock, groups = time.perf_counter(), list[Group]()
        if self.share is None or (step - 1) % self.settings.every == 0:
            groups = self._sampled(step)
            found = shares_and_truth(groups, self.run.verifiers.judge)
            self.share = calibrated_vote_share(found, self.vote.how.min_vote_share, self.settings.target_precision)
        self._asked = sum(each.num_own_tokens for group in groups for each in group.attempts), time.perf_counter() - clock
        self.vote.min_vote_share = self.share

    def after_rollout(self, batch: RolloutBatch) -> None:
        tokens, seconds = self._asked
        batch.notes[self.name] = {"min_share": self.share}
        batch.metrics["sampled_tokens"] = tokens + batch.own_tokens
        batch.seconds["rollout_seconds"] += seconds

    def before_update(self, batch: RolloutBatch) -> Metrics:
        known = batch.notes.get(self.name) or {"min_share": batch.metrics["vote_calibration/min_vote_share"]}  # runs older than notes
        self.share = known["min_share"]
        return {"vote_calibration/min_vote_share": self.share}

    def on_rollback(self) -> None:
        self.share = None

    def _sampled(self, step: int) -> list[Group]:
        from etude.rollouts.samples import sample_groups

        tasks, prompts = zip(*self.labelled, strict=True)
        rollout = self.run.settings.rollout
        sizes: dict[str, Any] = {"num_samples": rollout.num_samples, "max_new_tokens": rollout.max_new_tokens}
        names = self.run.seed, "agreement_probe", step - 1  # keys count the steps before
        return sample_groups(self.run.engine, tasks, prompts, **sizes, sampling=rollout.sampling, names=names)

    def state_dict(self) -> "dict[str, torch.Tensor]":
        import torch

        return {} if self.share is None else {"share": torch.tensor(self.share, dtype=torch.float64)}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.share = float(tensors["share"]) if "share" in tensors else None


def without_labelled(items: Items, n: int, shown: Collection[str]) -> tuple[Items, list[tuple[Task, tuple[int, ...]]]]:
    """Return the first n distinct tasks whose keys are not `shown` in demonstrations, where the model knows better, and the other tasks.

    Raises UserError if there are not enough.
    """
    unseen: dict[str, tuple[Task, tuple[int, ...]]] = {}
    for task, prompt in items:
        if task.key not in shown:
            unseen.setdefault(task.key, (task, prompt))
    labelled = list(unseen.values())[:n]
    asked = {task.key for task, _ in labelled}
    left = [(task, prompt) for task, prompt in items if task.key not in asked]
    if len(labelled) < n or not left:
        raise UserError(
            f"vote_calibration.n is {n}, but there are only {len(unseen)} different tasks that no demonstration shows, and one at least "
            "must be left to practise on: lower it, or give more tasks"
        )
    return labelled, left


def shares_and_truth(groups: Sequence[Group], judge: "Verify") -> list[tuple[float, bool]]:
    """Return (the majority's vote share, whether it is right) for each group with any answer."""
    found: list[tuple[float, str, Task]] = []
    for group in groups:
        votes = [vote(attempt.text, group.task) for attempt in group.attempts]
        tally = Tally.of(votes)
        if tally.winner is not None:
            found.append((tally.share(tally.winner), group.attempts[votes.index(tally.winner)].text, group.task))
    rewards = judge([(text, task) for _, text, task in found])
    return [(share, reward.is_right) for (share, _, _), reward in zip(found, rewards, strict=True)]
