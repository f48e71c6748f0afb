"""Practice on the model's own reliable answers: reliability moves from decoding into the weights, without gold answers.

For each task of a step, attempts are sampled as usual and an answer is decoded from the first `k` of them, by any method of
`etude.decoding`. It joins them as an attempt at the plain prompt that the policy did not sample. `imitation` or `preference` learn from the
rewards of `etude.rewards.own_answer`.
"""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from etude.decoding.decode import DecodingResult, decode
from etude.engine.completion import Completion, Logprobs
from etude.rewards.own_answer import OwnAnswer, rewards_by
from etude.rollouts.attempts import DECODED, Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.sampler import Items, Sampler
from etude.tasks.reward import Reward
from etude.tasks.task import Task
from etude.training.self_training_settings import SelfTraining


@dataclass
class SelfTrainingSampler(Sampler):
    """Samples attempts and adds the answer decoded from them as the last attempt of each group; scored by `etude.rewards.own_answer`."""

    how: SelfTraining = field(default_factory=SelfTraining)
    logprobs: Logprobs | None = None
    """Log-probs under the trained model."""
    counts: Counter[str] = field(default_factory=Counter)
    """Counters of the answers; increased in place."""

    def sample(self, step: int, items: Items) -> RolloutBatch:
        clock, rollout = [time.perf_counter()], self.rollout
        how = replace(self.how.decoding, sampling=self.sampling)
        sizes: dict[str, Any] = {"max_new_tokens": rollout.max_new_tokens, "room_tokens": self.room_tokens, "logprobs": self.logprobs}
        found = decode(self.engine, items, how, num_samples=rollout.num_samples, names=(self.seed, step), **sizes)
        groups = [_group(task, prompt, own) for (task, prompt), own in zip(items, found, strict=True)]
        clock.append(time.perf_counter())
        rewards = [self._rewards(task, own) for (task, _), own in zip(items, found, strict=True)]
        clock.append(time.perf_counter())
        seconds = {"rollout_seconds": clock[1] - clock[0], "feedback_seconds": clock[2] - clock[1]}
        return RolloutBatch(step, groups, rewards, {"sampled_tokens": sum(each.sampled_tokens for each in found)}, seconds)

    def _rewards(self, task: Task, found: DecodingResult) -> list[Reward]:
        how, answer = self.how, OwnAnswer(found.answer.text, found.answer.finish == "stop", found.answer.agreement)
        texts = [sample.text for sample in found.samples]
        return rewards_by(answer, texts, task, min_share=how.min_share, by_tokens=how.by == "tokens", counts=self.counts)


def _group(task: Task, prompt: tuple[int, ...], found: DecodingResult) -> Group:
    completions, answer = list(found.samples), found.answer
    if answer.text is not None:
        assert answer.finish is not None
        said = answer.tokens, answer.logprobs, answer.text, answer.finish
        completions.append(Completion(*said, key=0, policy_version=completions[0].policy_version, view=DECODED))
    return Group(task, tuple(Attempt.of(prompt, completion) for completion in completions))
