"""The learners of a practice run: which streams of the loss, which optimizer, anchored to what."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from etude.learn.entropy import EntropyBonus
from etude.learn.implicit_reward import ImplicitReward
from etude.learn.learner import Learner, Mark, Optimiser, Stream
from etude.learn.losses import POLICY_LOSSES, Covariance, kl, negative_log_likelihood
from etude.learn.replay import replay_stream
from etude.learn.sequences import LIKELIHOOD
from etude.randomness import seed_for
from etude.recipes.settings import PracticeSettings


def warm_start_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """The learner of the warm start, which imitates."""
    options: dict[str, Any] = {"dropout_seed": seed_for(settings.seed, "dropout", "warm_start")}
    return _learner(model, settings, dtype, settings.warm_start.optimiser, [Stream("imitate", negative_log_likelihood)], **options)


def preference_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """The learner of compared answers, whose reference is the model as it is now."""
    reference = copy.deepcopy(model).eval().requires_grad_(False) if settings.preferences.needs_reference else None
    return _learner(model, settings, dtype, settings.preferences.optimiser, [LIKELIHOOD], reference=reference)


def practice_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """The learner of practice, anchored to the model as it is now."""
    learn = settings.learn
    clip_low, clip_high = learn.clip
    policy = partial(POLICY_LOSSES[learn.loss], clip_low=clip_low, clip_high=clip_high)
    stream = partial(Stream, aggregation=learn.aggregation, constant_tokens=settings.explore.max_new_tokens)
    streams = [stream("policy", policy, mark=_mark_of(settings)), stream("imitate", negative_log_likelihood)]
    options: dict[str, Any] = {"temperature": settings.explore.sampling.temperature, "restarts": learn.restart}
    if learn.method == "imitation":
        options["dropout_seed"] = seed_for(settings.seed, "dropout", "practice")
    prefers = learn.method == "preference"
    if learn.anchor:
        streams.append(stream("anchor", kl, learn.anchor))
    if prefers:
        streams.append(LIKELIHOOD)
    replay = settings.retention.replay
    if replay.ratio:
        streams.append(replay_stream(replay, learn.aggregation, settings.explore.max_new_tokens))
    if learn.anchor or replay.anchor or (prefers and learn.preference.needs_reference):
        is_fixed = not (prefers and learn.preference.refresh_every)
        is_base = (
            learn.lora.rank > 0 and is_fixed and not settings.warm_start.steps + settings.preferences.steps
        )  # then it is the model without its adapters
        options["reference"] = None if is_base else copy.deepcopy(model).eval().requires_grad_(False)
    return _learner(model, settings, dtype, learn.optimiser, streams, **options)


def _mark_of(settings: PracticeSettings) -> Mark | None:
    """What the policy loss marks in a batch before it is cut, if it does."""
    learn = settings.learn
    if learn.loss not in ("clip_cov", "kl_cov"):
        return None
    return Covariance(learn.loss, learn.covariance, *learn.clip, settings.seed).mark


def entropy_bonus_for(settings: PracticeSettings) -> EntropyBonus | None:
    """What entropy is worth in the loss, if anything; of credit alone."""
    learn = settings.learn
    return EntropyBonus(learn.entropy) if learn.method == "credit" and learn.entropy.is_on else None


def implicit_reward_for(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> ImplicitReward | None:
    """The model of process rewards, if the settings want it; it begins as the policy is now."""
    how = settings.learn.implicit_reward
    if not how.coefficient:
        return None
    return ImplicitReward(model, how, dtype=dtype, batch_tokens=settings.machine.update_batch_tokens)


def _learner(
    model: Any, settings: PracticeSettings, dtype: torch.dtype, optimiser: Optimiser, streams: Sequence[Stream], **options: Any
) -> Learner:
    return Learner(model, optimiser, streams, dtype=dtype, batch_tokens=settings.machine.update_batch_tokens, **options)
