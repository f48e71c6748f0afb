"""Independent samples of the policy, a group for each task; scored in the background if the reward allows it."""

import time
from collections.abc import Sequence
from concurrent.futures import Future

from etude.errors import UserError
from etude.rollouts.attempts import Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.early_stop import is_decided, portions
from etude.rollouts.sampler import Begin, Items, Sampler, judge_groups
from etude.rollouts.samples import sample_groups
from etude.rollouts.variants import asked, sample_variously
from etude.tasks.reward import Reward
from etude.tasks.task import Task


class AsyncJudge:
    """Scores each group as soon as it is sampled, while others still are: the rewards of `judge_groups`, earlier."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin
        self.begun: dict[int, Future[list[Reward]]] = {}

    def __call__(self, place: int, group: Group) -> None:
        self.begun[place] = self.begin([(attempt.text, group.task) for attempt in group.attempts])

    def rewards(self) -> list[list[Reward]]:
        """Wait for the rewards of all groups and return them in order; re-raises exceptions of scoring."""
        return [self.begun[place].result() for place in sorted(self.begun)]


class IndependentSampler(Sampler):
    """Samples in one or two portions (`rollout.early_stop_groups`), with the variants of prompts, if any."""

    def check(self, items: Items) -> None:
        """Raise UserError if a variant of a prompt is too long."""
        for task, _ in items if self.rollout.prompt_variants else ():
            if (longest := max(map(len, self._variants_of(task)))) > self.room_tokens:
                raise UserError(
                    f"{task.origin or 'a task'} has a prompt of {longest} tokens by rollout.prompt_variants; the model has room for "
                    f"{self.room_tokens}: shorten the variants"
                )

    def sample(self, step: int, items: Items) -> RolloutBatch:
        stop = self.rollout.early_stop_groups
        groups = [Group(task, ()) for task, _ in items]
        batch = RolloutBatch(step, groups, [[] for _ in items], {}, {"rollout_seconds": 0.0, "feedback_seconds": 0.0})
        going = list(range(len(items)))
        for attempts in portions(self.rollout.num_samples, stop):
            self._sample_portion(batch, items, going, attempts)
            going = [place for place in going if not is_decided(batch.rewards[place], stop)]
            if not going:
                break
        return batch

    def _sample_portion(self, batch: RolloutBatch, items: Items, places: Sequence[int], attempts: range) -> None:
        """Sample the attempts of these numbers at the tasks of these indices, and add them to the batch."""
        clock, meanwhile = [time.perf_counter()], AsyncJudge(self.begin) if self.begin else None
        groups = self._sampled(batch.step, {place: items[place] for place in places}, attempts, meanwhile)
        clock.append(time.perf_counter())
        rewards = meanwhile.rewards() if meanwhile else judge_groups(groups, self.judge)
        clock.append(time.perf_counter())
        for place, group, row in zip(places, groups, rewards, strict=True):
            batch.groups[place] = Group(group.task, (*batch.groups[place].attempts, *group.attempts))
            batch.rewards[place] += row
        batch.seconds["rollout_seconds"] += clock[1] - clock[0]
        batch.seconds["feedback_seconds"] += clock[2] - clock[1]

    def _sampled(self, step: int, items: dict[int, tuple[Task, tuple[int, ...]]], attempts: range, done: AsyncJudge | None) -> list[Group]:
        rollout, tasks, places = self.rollout, [task for task, _ in items.values()], list(items)
        if rollout.prompt_variants:
            return sample_variously(
                self.engine,
                tasks,
                [self._variants_of(task) for task in tasks],
                attempts=attempts,
                max_new_tokens=rollout.max_new_tokens,
                sampling=self.sampling,
                names=(self.seed, step),
                places=places,
                done=done,
            )
        return sample_groups(
            self.engine,
            tasks,
            [prompt for _, prompt in items.values()],
            num_samples=len(attempts),
            max_new_tokens=rollout.max_new_tokens,
            sampling=self.sampling,
            names=(self.seed, step),
            places=places,
            first=attempts.start,
            done=done,
        )

    def _variants_of(self, task: Task) -> list[tuple[int, ...]]:
        """Return the task's prompts for `rollout.prompt_variants`."""
        return [self.render(asked(task, variant)) for variant in self.rollout.prompt_variants]
