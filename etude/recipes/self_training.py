"""Practice on the model's own reliable answers: reliability moves from decoding into the weights, without gold answers.

Of each task of a step attempts are sampled as elsewhere and an answer is decoded from the first `k` of them, by any method of
`etude.decoding`; it joins them as an attempt at the plain prompt that was no sample of the policy, and `imitation` or `preference` learn
from what `etude.rewards.own_answer` says of them.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from etude.decoding.decode import DecodingResult, decode
from etude.device.machine import Place
from etude.engine.completion import Completion
from etude.engine.transformers import TransformersEngine
from etude.recipes.self_training_settings import SelfTraining
from etude.rewards.own_answer import OwnAnswer, verdicts_by
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import DECODED, Attempt, Group
from etude.rollouts.settings import Exploration
from etude.suites.retention_probe import logprobs_of
from etude.tasks.task import Task
from etude.training.ledger import Judged

if TYPE_CHECKING:
    from etude.recipes.settings import PracticeSettings


class SelfTeaching:
    """Attempts with an answer made of them, in one run."""

    def __init__(self, how: SelfTraining, engine: TransformersEngine, counts: Counter[str], *, seed: int, **asking: Any) -> None:
        """`counts` are added to; `asking` is what a `Pool` takes beside samples, sampling and names."""
        self.how, self.engine, self.counts, self.seed, self.asking = how, engine, counts, seed, asking

    def judged(self, step: int, items: Sequence[tuple[Task, tuple[int, ...]]], explore: Exploration) -> Judged:
        """The attempts of step `step`, counted from 1, at these tasks; the last one of each group is the answer that was made of them."""
        clock = [time.perf_counter()]
        how = replace(self.how.decoding, sampling=explore.sampling)
        found = decode(self.engine, items, how, num_samples=explore.num_samples, names=(self.seed, step), **self.asking)
        groups = [_group(task, prompt, own) for (task, prompt), own in zip(items, found, strict=True)]
        clock.append(time.perf_counter())
        verdicts = [self._verdicts(task, own) for (task, _), own in zip(items, found, strict=True)]
        clock.append(time.perf_counter())
        seconds = {"explore_seconds": clock[1] - clock[0], "feedback_seconds": clock[2] - clock[1]}
        return Judged(groups, verdicts, {"sampled_tokens": sum(each.sampled_tokens for each in found)}, seconds)

    def _verdicts(self, task: Task, found: DecodingResult) -> list[Verdict]:
        how, answer = self.how, OwnAnswer(found.answer.text, found.answer.finish == "stop", found.answer.agreement)
        texts = [sample.text for sample in found.samples]
        return verdicts_by(answer, texts, task, min_share=how.min_share, by_tokens=how.by == "tokens", counts=self.counts)


def self_teaching_for(
    settings: "PracticeSettings", engine: TransformersEngine, model: Any, place: Place, room_tokens: int, counts: Counter[str] | None
) -> SelfTeaching | None:
    """Of a run's settings, with the counts of its feedback; None where no answers are counted."""
    if counts is None:
        return None
    asking = {"max_new_tokens": settings.explore.max_new_tokens, "room_tokens": room_tokens}
    logprobs = logprobs_of(model, place, settings.machine)
    return SelfTeaching(settings.self_training, engine, counts, seed=settings.seed, logprobs=logprobs, **asking)


def _group(task: Task, prompt: tuple[int, ...], found: DecodingResult) -> Group:
    completions, answer = list(found.samples), found.answer
    if answer.text is not None:
        assert answer.finish is not None
        said = answer.tokens, answer.logprobs, answer.text, answer.finish
        completions.append(Completion(*said, key=0, policy_version=completions[0].policy_version, view=DECODED))
    return Group(task, tuple(Attempt.of(prompt, completion) for completion in completions))
