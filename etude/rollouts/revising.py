"""Samples that are revised after feedback in words: in practice, and for users without a verifier."""

import time
from collections.abc import Sequence
from typing import Any

from etude.engine.protocols import Engine
from etude.engine.sampling import Sampling
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.independent import IndependentSampler
from etude.rollouts.refinement import Refinement, refine
from etude.rollouts.sampler import Items, TimedJudge
from etude.rollouts.samples import sample_groups
from etude.tasks.reward import Reward, scores_of, turns_right
from etude.tasks.task import Task


class RefineSampler(IndependentSampler):
    """Samples independent attempts and their further turns."""

    def sample(self, step: int, items: Items) -> RolloutBatch:
        batch = super().sample(step, items)
        rollout, timed, clock = self.rollout, TimedJudge(self.judge), time.perf_counter()
        batch.groups, batch.rewards = refine(
            self.engine,
            batch.groups,
            batch.rewards,
            timed,
            rollout.refine,
            max_new_tokens=rollout.max_new_tokens,
            room_tokens=self.room_tokens,
            sampling=self.sampling,
            names=(self.seed, step),
            steps=rollout.search.steps,
        )
        batch.seconds["rollout_seconds"] += time.perf_counter() - clock - timed.seconds
        batch.seconds["feedback_seconds"] += timed.seconds
        batch.metrics |= refine_metrics(batch.groups, batch.rewards, rollout.refine)
        return batch


def refine_metrics(groups: Sequence[Group], rewards: Sequence[Sequence[Reward]], how: Refinement) -> dict[str, Any]:
    """Return metrics of a step's revisions: `score_first` is the first turns' mean score (`score` the last ones'), the others are shares.

    `revised` is over all attempts; `corrected` over the revised ones that were wrong at first, `spoiled` over those that were right (which
    only fixed words revise); `out_of_room` over all: those without room for another turn. A share of none is None.
    """
    pairs = [pair for group, row in zip(groups, rewards, strict=True) for pair in zip(group.attempts, row, strict=True)]
    first = [scores_of(reward)[0] for _, reward in pairs]
    known = [score for score in first if score is not None]
    changed = [(turns_right(reward)[0], reward.is_right) for attempt, reward in pairs if attempt.turns > 1]
    return {
        "score_first": sum(known) / len(known) if known else None,
        "revised": len(changed) / len(pairs),
        "corrected": _share([after for before, after in changed if not before]),
        "spoiled": _share([not after for before, after in changed if before]),
        "out_of_room": sum(how.goes_on(attempt, reward) for attempt, reward in pairs) / len(pairs),
        "sampled_tokens": sum(attempt.num_own_tokens for attempt, _ in pairs),
    }


def revised_answers(
    engine: Engine,
    items: Sequence[tuple[Task, tuple[int, ...]]],
    how: Refinement,
    *,
    max_new_tokens: int,
    room_tokens: int,
    sampling: Sampling,
    names: Sequence[object],
) -> list[Attempt]:
    """Return an answer to each (task, prompt as token ids), revised after fixed words; random numbers are keyed by `names`."""
    tasks, prompts = [task for task, _ in items], [prompt for _, prompt in items]
    sizes: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampling": sampling, "names": names}
    first = sample_groups(engine, tasks, prompts, num_samples=1, **sizes)
    unknown = [[Reward(None)] for _ in tasks]
    groups, _ = refine(engine, first, unknown, _nobody_knows, how, room_tokens=room_tokens, **sizes)
    return [group.attempts[0] for group in groups]


def _nobody_knows(pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
    return [Reward(None) for _ in pairs]


def _share(cases: Sequence[bool]) -> float | None:
    return sum(cases) / len(cases) if cases else None
