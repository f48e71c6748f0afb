"""Find the settings of a practice run that nothing reads; callbacks that are not listed have none."""

from collections.abc import Iterator

from etude.learn.loss_settings import CLIP_RANGES, POLICY_LOSS_NAMES
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.rollouts.search.settings import REFINE, SEARCHES
from etude.settings.configuration import flatten, to_plain_values
from etude.settings.unused import ANY, Read, unread_among, unread_by, unread_in
from etude.training.parse import callbacks_of, practice_defaults
from etude.training.settings import PracticeSettings

_POLICY_GRADIENT = ("learn.advantage", "learn.pass_k", "learn.outcome_coef", "learn.loss", "learn.clip_", "learn.covariance.")
_COVARIANCE = ("clip_cov", "kl_cov")
_TREES = tuple(name for name in SEARCHES if name != "samples")
READ = (
    Read(("judge.",), "reward", ("judge",)),
    Read(("majority_vote.",), "reward", ("majority_vote",)),
    Read(("self_training.",), "reward", ("self_training",)),
    Read(("rollout.num_samples",), "rollout.search.method", ("samples", REFINE)),
    Read(("rollout.refine.", "learn.turn_discount"), "rollout.search.method", (REFINE,)),
    Read(("learn.step_values",), "rollout.search.method", _TREES),
    Read(_POLICY_GRADIENT, "learn.method", ("policy_gradient",)),
    Read(("learn.preference.",), "learn.method", ("preference",)),
    Read(("learn.pass_k",), "learn.advantage", ("pass_at_k",)),
    Read(("learn.outcome_coef",), "learn.advantage", tuple(STEP_ADVANTAGES)),
    Read(("learn.clip_low",), "learn.loss", [name for name in POLICY_LOSS_NAMES if name not in ("cispo", "kl_cov")]),
    Read(("learn.clip_high",), "learn.loss", [name for name in POLICY_LOSS_NAMES if name != "kl_cov"]),
    Read(("learn.covariance.",), "learn.loss", _COVARIANCE),
    Read(("learn.covariance.clip_cov_lb", "learn.covariance.clip_cov_ub"), "learn.loss", ("clip_cov",)),
    Read(("learn.covariance.ppo_kl_coef",), "learn.loss", ("kl_cov",)),
    Read(("learn.preference.simpo_gamma",), "learn.preference.loss", ("simpo",)),
    Read(("evaluation.thought.",), "evaluation.thought.budgets", ANY),
    Read(("retention.text", "retention.choices", "retention.n", "retention.window_tokens"), "retention.probe", (True,)),
    Read(("preferences.",), "preferences.steps", ANY),
)
"""Settings that are read only for some values of another setting."""


def unused_settings(settings: PracticeSettings) -> list[str]:
    """Return the changed settings that nothing reads, in groups with the reason: `judge.model: reward is verifier`."""
    values = flatten(to_plain_values(settings)) | {"reward": settings.reward_parts}
    unread = (
        unread_by((*READ, *_of_callbacks(settings)), values) | unread_in("kv_cache", settings.kv_cache, "policy") | _of_search(settings)
    )
    decoding = settings.self_training.decoding
    if settings.reward == "self_training":  # its attempts are sampled by rollout.sampling
        unread |= {
            tuple(f"self_training.decoding.{name}" for name in sorted({*decoding.unread, "sampling."})): (
                f"self_training.decoding.method is {decoding.method}"
            )
        }
    if not settings.tasks.actions.gate and "format" not in settings.reward_parts:
        unread |= {("tasks.actions.malformed_score",): "neither reward format nor tasks.actions.gate scores the form"}
    clip = dict(zip(("learn.clip_low", "learn.clip_high"), CLIP_RANGES[settings.learn.loss], strict=True))  # the loss's defaults
    usual = PracticeSettings(tasks=settings.tasks).callbacks
    idle = [f"callbacks.{name}" for name, own in settings.callbacks.items() if own != usual.get(name) and not settings.steps]
    return unread_among(settings, practice_defaults() | clip, unread) + ([f"{', '.join(idle)}: steps is 0"] if idle else [])


def said_of_unused(settings: PracticeSettings) -> list[str]:
    """Return the unused settings in one sentence, for a run and a dry run; [] if every setting is read."""
    unused = unused_settings(settings)
    return [f"unused settings: {'; '.join(unused)}"] if unused else []


def _of_callbacks(settings: PracticeSettings) -> Iterator[Read]:
    """Yield the declarations of the run's callbacks, by dotted name."""
    for callback in callbacks_of(settings):
        start = f"callbacks.{callback.name}."
        for prefixes, setting, values in callback.reads:
            yield Read(tuple(start + each for each in prefixes), setting if "." in setting else start + setting, values)


def _of_search(settings: PracticeSettings) -> dict[tuple[str, ...], str]:
    search = settings.rollout.search
    names = search.unread - ({"steps."} if "step_model" in settings.callbacks else set())
    return {tuple(f"rollout.search.{name}" for name in sorted(names)): f"rollout.search.method is {search.method}"}
