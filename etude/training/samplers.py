"""Choose the sampler of a run by its settings."""

from collections import Counter
from typing import Any

from etude.engine.completion import Logprobs
from etude.rollouts.independent import IndependentSampler
from etude.rollouts.revising import RefineSampler
from etude.rollouts.sampler import Sampler
from etude.rollouts.tree_search import TreeSampler
from etude.training.self_training import SelfTrainingSampler
from etude.training.settings import PracticeSettings


def sampler_for(settings: PracticeSettings, *, logprobs: Logprobs, own_answers: Counter[str] | None, **parts: Any) -> Sampler:
    """Return the sampler of a run; `parts` are the arguments of all samplers, `own_answers` the counters of self-training."""
    common: dict[str, Any] = {"rollout": settings.rollout, "seed": settings.seed, **parts}
    if settings.reward == "self_training":
        counts = own_answers if own_answers is not None else Counter()
        return SelfTrainingSampler(**common, how=settings.self_training, logprobs=logprobs, counts=counts)
    if settings.rollout.is_search:
        return TreeSampler(**common, hard_values=settings.learn.step_values == "hard")
    return RefineSampler(**common) if settings.rollout.turns > 1 else IndependentSampler(**common)
