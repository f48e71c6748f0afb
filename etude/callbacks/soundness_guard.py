"""Soundness guard: an answer that satisfies the verifier without saying anything about the request gets the score 0.

Rules that a function checks can be met by noise ("...", one word for every request). The guard measures fluency and topic of an answer by
the model as it came (`etude.evaluation.soundness`). In practice it sets the reward from which a policy gradient, imitation or preferences
learn to `refused_score`; the logged rewards stay. In evaluations it does the same to answers that are right, so that accuracy counts
answers that are right and sound, before practice and after it; `sound` is their share of the right ones.

Cost: a copy of the model, and two passes over the answers that can lose their score. Identity: thresholds of -inf.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from etude.engine.completion import Tokens
from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.evaluation.soundness import MIN_FLUENCY, MIN_TOPIC, request_of, soundness
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.evaluation.measure import Verify
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class SoundnessGuardSettings:
    """Guard against answers that satisfy a verifier and say nothing."""

    min_fluency: float = MIN_FLUENCY
    """Least mean log-prob of a token of the answer, given the request without its rules, in nats."""
    min_topic: float = MIN_TOPIC
    """Least difference of the answer's log-probs given its own request and given another one, in nats."""
    refused_score: float = 0.0
    """Score of an attempt that is refused; at most what the verifier gives to a wrong answer."""

    def __post_init__(self) -> None:
        if not self.min_fluency < 0:
            raise UserError(f"soundness_guard.min_fluency must be below 0, got {self.min_fluency}: log-probs are negative")


class SoundnessGuard(Callback):
    """Replaces `batch.shaped_rewards`."""

    name, Settings = "soundness_guard", SoundnessGuardSettings
    panels = (
        Panel(
            "Refused attempts",
            "share of sampled attempts",
            {
                "soundness_guard/refused_right": "right by the verifier, refused",
                "soundness_guard/fluency": "not fluent",
                "soundness_guard/topic": "not on the topic",
            },
        ),
    )
    excludes = (
        Excludes("rollout.search.method", "set it to samples", "reads single answers", values=("refine",)),
        Excludes(
            "learn.advantage", "choose one that compares whole answers", "changes rewards of whole answers", values=("vineppo", "treerl")
        ),
    )

    def prepare(self, run: "PracticeRun") -> None:
        from etude.suites.retention_probe import logprobs_of

        subjects = {request.question: request for request in map(request_of, run.data.train)}
        if len(subjects) < 2:
            raise UserError("soundness_guard compares an answer's request with another one, and all training tasks have the same")
        self.render = run.render
        self.spare = [self.render(request) for request in islice(subjects.values(), 2)]
        self.logprobs = logprobs_of(copy.deepcopy(run.model).eval().requires_grad_(False), run.place, run.settings.machine)
        run.judge = self.judge_by(run.judge, run.tokenizer)

    def judge_by(self, judge: "Verify", tokenizer: Any) -> "Verify":
        """Return a judge of evaluations that refuses what `judge` calls right and is not sound."""

        def judged(pairs: Sequence[tuple[str, Task]]) -> list[Reward]:
            rewards = judge(pairs)
            right = [place for place, reward in enumerate(rewards) if reward.is_right]
            answers = [[tuple(tokenizer(pairs[place][0], add_special_tokens=False)["input_ids"])] for place in right]
            for place, (problem,) in zip(right, self._problems([pairs[place][1] for place in right], answers), strict=True):
                sound = replace(rewards[place], parts={**rewards[place].parts, "sound": float(problem is None)})
                rewards[place] = self._guarded(sound, problem)
            return rewards

        return judged

    def before_update(self, batch: RolloutBatch) -> Metrics:
        answers = [
            [attempt.own_tokens if self._can_fall(reward) else () for attempt, reward in zip(group.attempts, row, strict=True)]
            for group, row in zip(batch.groups, batch.shaped_rewards, strict=True)
        ]
        problems = self._problems([group.task for group in batch.groups], answers)
        counts: Counter[str] = Counter()
        for row, own in zip(batch.rewards, problems, strict=True):
            counts.update(problem for problem in own if problem)
            counts["refused_right"] += sum(reward.is_right for reward, problem in zip(row, own, strict=True) if problem)
        batch.shaped_rewards = [
            [self._guarded(*each) for each in zip(row, own, strict=True)] for row, own in zip(batch.shaped_rewards, problems, strict=True)
        ]
        number = sum(map(len, answers))
        return {f"{self.name}/{name}": counts[name] / number for name in ("refused_right", "fluency", "topic")}

    def _problems(self, tasks: Sequence[Task], answers: Sequence[Sequence[Tokens]]) -> list[list[str | None]]:
        """Return what is unsound about each answer to each task; None for an empty one, which is not measured."""
        how = self.settings
        measured = soundness([self.render(request_of(task)) for task in tasks], answers, self.logprobs, self.spare) if tasks else []
        return [
            [each.problem(how.min_fluency, how.min_topic) if answer else None for each, answer in zip(*both, strict=True)]
            for both in zip(measured, answers, strict=True)
        ]

    def _can_fall(self, reward: Reward) -> bool:
        return reward.score is not None and reward.score > self.settings.refused_score

    def _guarded(self, reward: Reward, problem: str | None) -> Reward:
        return replace(reward, score=self.settings.refused_score, message=f"not sound: {problem}") if problem else reward
