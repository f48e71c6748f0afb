"""Soundness guard: an attempt that satisfies the verifier without saying anything about the request gets the score 0.

Rules that a function checks can be met by noise ("...", one word for every request). The guard measures fluency and topic of each attempt
by the model at the start of practice (`etude.evaluation.soundness`). It sets the reward from which a policy gradient, imitation or
preferences learn to `refused_score`; the logged rewards stay. Cost: two passes of the start model over attempts that score more.
Identity: thresholds of -inf.
"""

from collections import Counter
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.evaluation.soundness import MIN_FLUENCY, MIN_TOPIC, request_of, soundness
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
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

    def start(self, run: "PracticeRun") -> None:
        self.learner, self.render = run.learner, run.render
        subjects = {request.question: request for request in map(request_of, run.data.train)}
        if len(subjects) < 2:
            raise UserError("soundness_guard compares an answer's request with another one, and all training tasks have the same")
        self.spare = [self.render(request) for request in islice(subjects.values(), 2)]
        run.add_reference()

    def before_update(self, batch: RolloutBatch) -> Metrics:
        from etude.learn.example import Example

        answers = [
            [attempt.own_tokens if self._can_fall(reward) else () for attempt, reward in zip(group.attempts, row, strict=True)]
            for group, row in zip(batch.groups, batch.shaped_rewards, strict=True)
        ]
        measured = soundness(
            [self.render(request_of(group.task)) for group in batch.groups],
            answers,
            lambda pairs: self.learner.logprobs([Example(*pair) for pair in pairs], reference=True),
            self.spare,
        )
        how = self.settings
        problems = [
            [each.problem(how.min_fluency, how.min_topic) if answer else None for each, answer in zip(*both, strict=True)]
            for both in zip(measured, answers, strict=True)
        ]
        counts: Counter[str] = Counter()
        for row, own in zip(batch.rewards, problems, strict=True):
            counts.update(problem for problem in own if problem)
            counts["refused_right"] += sum(reward.is_right for reward, problem in zip(row, own, strict=True) if problem)
        batch.shaped_rewards = [
            [self._guarded(*each) for each in zip(row, own, strict=True)] for row, own in zip(batch.shaped_rewards, problems, strict=True)
        ]
        number = sum(map(len, answers))
        return {f"{self.name}/{name}": counts[name] / number for name in ("refused_right", "fluency", "topic")}

    def _can_fall(self, reward: Reward) -> bool:
        return reward.score is not None and reward.score > self.settings.refused_score

    def _guarded(self, reward: Reward, problem: str | None) -> Reward:
        return replace(reward, score=self.settings.refused_score) if problem else reward
