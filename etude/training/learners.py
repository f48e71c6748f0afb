"""The learners of a practice run: their loss streams, optimizers and references."""

import copy
from functools import partial
from typing import Any

import torch

from etude.learn.learner import Learner, Mark, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES, Covariance, negative_log_likelihood
from etude.learn.sequences import LIKELIHOOD
from etude.randomness import seed_for
from etude.training.settings import PracticeSettings


def warm_start_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """Return the learner of the warm start, which imitates."""
    options: dict[str, Any] = {"dropout_seed": seed_for(settings.seed, "dropout", "warm_start")}
    return _learner(
        model,
        settings,
        dtype,
        settings.warm_start.optimizer.over(settings.warm_start.steps),
        [Stream("imitate", negative_log_likelihood)],
        **options,
    )


def preference_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """Return the learner of preference pairs; its reference is the current model."""
    reference = copy.deepcopy(model).eval().requires_grad_(False) if settings.preferences.needs_reference else None
    return _learner(
        model, settings, dtype, settings.preferences.optimizer.over(settings.preferences.steps), [LIKELIHOOD], reference=reference
    )


def practice_learner(model: Any, settings: PracticeSettings, dtype: torch.dtype) -> Learner:
    """Return the learner of practice; callbacks may add streams and a reference."""
    learn = settings.learn
    clip_low, clip_high = learn.clip
    policy = partial(POLICY_LOSSES[learn.loss], clip_low=clip_low, clip_high=clip_high)
    stream = partial(Stream, loss_agg_mode=learn.loss_agg_mode, constant_tokens=settings.rollout.max_new_tokens)
    streams = [stream("policy", policy, mark=_mark_of(settings)), stream("imitate", negative_log_likelihood)]
    options: dict[str, Any] = {"temperature": settings.rollout.sampling.temperature, "restarts": learn.reset_to_initial_each_step}
    if learn.method == "imitation":
        options["dropout_seed"] = seed_for(settings.seed, "dropout", "practice")
    if learn.method == "preference":
        streams.append(LIKELIHOOD)
    return _learner(model, settings, dtype, learn.optimizer.over(learn.most_updates(settings.steps)), streams, **options)


def needs_reference(settings: PracticeSettings) -> bool:
    """Return whether the method itself needs a reference model."""
    return settings.learn.method == "preference" and settings.learn.preference.needs_reference


def is_base(settings: PracticeSettings) -> bool:
    """Return whether the model at the start of practice is the trained model without its adapters, throughout practice."""
    is_fixed = not (settings.learn.method == "preference" and settings.learn.preference.ref_model_sync_steps)
    return settings.learn.lora.rank > 0 and is_fixed and not settings.warm_start.steps + settings.preferences.steps


def _mark_of(settings: PracticeSettings) -> Mark | None:
    """Return the function by which the policy loss marks tokens of a whole batch, if it does."""
    learn = settings.learn
    if learn.loss not in ("clip_cov", "kl_cov"):
        return None
    return Covariance(learn.loss, learn.covariance, *learn.clip, settings.seed).mark


def _learner(
    model: Any, settings: PracticeSettings, dtype: torch.dtype, optimizer: OptimizerSettings, streams: list[Stream], **options: Any
) -> Learner:
    return Learner(model, optimizer, streams, dtype=dtype, batch_tokens=settings.machine.max_tokens_per_microbatch, **options)
