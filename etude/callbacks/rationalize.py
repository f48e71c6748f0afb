"""Rationalization (STaR, arXiv 2203.14465, sec. 3.2): sample tasks without a right attempt again, as often, with the answer shown.

The new attempts join their group as if the answer had not been shown (`etude.rollouts.hints`); imitation and preferences learn from them.
A group without any score gets none.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from etude.errors import UserError
from etude.rollouts.attempts import HINTED, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.hints import HINT, hinted, without_hint
from etude.training.callback import Callback, Excludes

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class RationalizeSettings:
    """Rationalization (STaR): new attempts with the answer shown, if no attempt at a task is right."""

    hint: str = HINT
    """Text after the question, with {answer}."""

    def __post_init__(self) -> None:
        if "{answer}" not in self.hint:
            raise UserError(f"rationalize.hint must say where the answer stands, with {{answer}}, got {self.hint!r}")

    @property
    def phrase(self) -> str:
        """The model card's phrase for it."""
        return "as many attempts again with the answer shown where none is right"


class Rationalize(Callback):
    """Adds attempts to groups without a right one."""

    name, Settings, more_attempts = "rationalize", RationalizeSettings, 1
    excludes = (
        Excludes("learn.method", "set it to imitation or preference", "makes attempts that saw the answer", values=("policy_gradient",)),
        Excludes("rollout.search.method", "set it to samples", "is for independent attempts", allowed=("samples",)),
        Excludes("callbacks.step_model", "leave step_model out", "makes attempts that saw the answer"),
        Excludes("callbacks.synthetic_tasks", "leave synthetic_tasks out", "is for given tasks"),
        Excludes(
            "reward", "set it to verifier", "adds attempts that the answer made of the others does not know", values=("self_training",)
        ),
    )

    def start(self, run: "PracticeRun") -> None:
        self.run = run

    def after_rollout(self, batch: RolloutBatch) -> None:
        from etude.rollouts.samples import sample_groups

        run, sampler, clock = self.run, self.run.sampler, [time.perf_counter()]
        known = [[reward for reward in row if reward.score is not None] for row in batch.rewards]
        failed = [place for place, row in enumerate(known) if row and not any(reward.is_right for reward in row)]
        shown = {
            place: hinted(batch.groups[place].task, self.settings.hint) for place in failed if batch.groups[place].task.answer is not None
        }
        prompts = {place: prompt for place, task in shown.items() if len(prompt := run.render(task)) <= run.room_tokens}
        places = list(prompts)
        groups = sample_groups(
            run.engine,
            [batch.groups[place].task for place in places],
            list(prompts.values()),
            num_samples=run.settings.rollout.num_samples,
            max_new_tokens=run.settings.rollout.max_new_tokens,
            sampling=sampler.sampling,
            names=(run.seed, batch.step, HINTED),
            places=places,
        )
        clock.append(time.perf_counter())
        rewards = run.judge_groups(groups)
        clock.append(time.perf_counter())
        for place, group, row in zip(places, groups, rewards, strict=True):
            before = batch.groups[place]
            own = tuple(without_hint(attempt, run.render(before.task)) for attempt in group.attempts)
            batch.groups[place] = Group(before.task, (*before.attempts, *own))
            batch.rewards[place] = [*batch.rewards[place], *row]
        right = sum(reward.is_right for row in rewards for reward in row)
        batch.metrics |= {"rationalize/attempts": sum(map(len, rewards)), "rationalize/right": right}
        batch.seconds["rollout_seconds"] += clock[1] - clock[0]
        batch.seconds["feedback_seconds"] += clock[2] - clock[1]
