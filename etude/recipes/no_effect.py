"""Settings that were changed and that nothing reads as the others are.

No mistake, since a recipe may be tried either way with one setting changed, but a person should know: told before anything is computed.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etude.decoding.settings import ReliableDecoding
from etude.kv_cache.settings import EngineView
from etude.learn.loss_settings import CLIP_RANGES
from etude.learn.step_credit import STEP_CREDIT
from etude.recipes.settings import PracticeSettings, practice_defaults
from etude.rollouts.search.settings import REFINE
from etude.settings.configuration import dotted, resolved

Sections = Mapping[tuple[str, ...], str]
"""Beginnings of names that nothing reads, and why."""


def without_effect(settings: PracticeSettings) -> list[str]:
    """For each group of such settings of a practice run its names and why: `judge.model: feedback is outcome`."""
    clip = dict(zip(("learn.clip_low", "learn.clip_high"), CLIP_RANGES[settings.learn.loss], strict=True))  # which its loss has by default
    return unread_among(settings, practice_defaults() | clip, _unread(settings))


def said_of_unread(settings: PracticeSettings) -> list[str]:
    """The one sentence of all of them, as a run and a dry run say it; none where every setting is read."""
    unread = without_effect(settings)
    return [f"unused settings: {'; '.join(unread)}"] if unread else []


def unread_of_search(settings: Any, also: Sequence[str] = (), more: Sections = MappingProxyType({})) -> list[str]:
    """The same of settings with a search for answers (`etude.recipes.answering`); `also` are more that it does not read, `more` what else
    is not read, and why.
    """
    sections = {(*also, *_of_search("search", settings.search.unread)): f"search.method is {settings.search.method}", **more}
    return unread_among(settings, dotted(resolved(type(settings)())), sections)


def unread_of_decoding(how: ReliableDecoding) -> dict[tuple[str, ...], str]:
    """The settings in a section `decoding` that its method does not read."""
    return {tuple(f"decoding.{name}" for name in sorted(how.unread)): f"decoding.method is {how.method}"}


def unread_of_view(how: EngineView) -> dict[tuple[str, ...], str]:
    """The settings in a section `engine` that its view does not read."""
    return {tuple(f"engine.{name}" for name in sorted(how.unread)): f"engine.view is {how.view}"}


def unread_among(settings: Any, defaults: Mapping[str, Any], sections: Sections) -> list[str]:
    """The same of any settings, by what is not read of them."""
    own = dotted(resolved(settings))
    changed = [name for name, value in own.items() if name in defaults and value != defaults[name]]
    found: dict[str, list[str]] = {}
    for prefixes, why in sections.items():
        found.setdefault(why, []).extend(name for name in changed if name.startswith(prefixes))
    return [f"{', '.join(names)}: {why}" for why, names in found.items() if names]


def _of_search(prefix: str, names: Collection[str]) -> tuple[str, ...]:
    """Settings of a search in full."""
    return tuple(f"{prefix}.{name}" for name in sorted(names))


Reads = dict[tuple[str, ...], tuple[bool, str]]
"""Beginnings of names, whether anything reads them, and why not."""


def _unread(settings: PracticeSettings) -> Sections:
    sections = _of_feedback(settings) | _of_exploring(settings) | _of_learning(settings) | _of_keeping(settings)
    return {prefixes: why for prefixes, (is_read, why) in sections.items() if not is_read} | unread_of_view(settings.engine)


def _of_feedback(settings: PracticeSettings) -> Reads:
    return {
        ("tasks.actions.malformed_score",): (
            settings.tasks.actions.gate or "form" in settings.feedback_parts,
            "neither form nor tasks.actions.gate scores the form",
        ),
        ("judge.",): ("judge" in settings.feedback_parts, f"feedback is {settings.feedback}"),
        ("agreement.",): ("agreement" in settings.feedback_parts, f"feedback is {settings.feedback}"),
        ("self_training.",): (settings.feedback == "self_training", f"feedback is {settings.feedback}"),
        tuple(f"self_training.decoding.{name}" for name in sorted({*settings.self_training.decoding.unread, "sampling."})): (
            settings.feedback != "self_training",
            f"self_training.decoding.method is {settings.self_training.decoding.method}, of attempts drawn by explore.sampling",
        ),
        ("agreement.probe_",): ("agreement" not in settings.feedback_parts or settings.agreement.probe_n > 0, "agreement.probe_n is 0"),
        ("collapse.",): (settings.collapse.action != "off", "collapse.action is off"),
    }


def _of_exploring(settings: PracticeSettings) -> Reads:
    explore, method = settings.explore, settings.explore.search.method
    unread = explore.search.unread - ({"steps."} if settings.step_model.on else set())
    searched = f"explore.search.method is {method}"
    return {
        _of_search("explore.search", unread): (False, searched),
        ("explore.num_samples",): (not explore.is_search, searched),
        ("explore.refine.",): (method == REFINE, searched),
        ("explore.curriculum.category", "explore.curriculum.memory"): (
            explore.curriculum.method == "weakness",
            f"explore.curriculum is {explore.curriculum.method}",
        ),
        ("explore.curriculum.raise_at", "explore.curriculum.lower_at", "explore.curriculum.level_groups"): (
            explore.curriculum.method == "levels",
            f"explore.curriculum is {explore.curriculum.method}",
        ),
        ("explore.curriculum.rest",): (explore.curriculum.method != "none", "explore.curriculum is none"),
        ("explore.self_made.",): (explore.self_made.is_on, "explore.self_made is none"),
        ("explore.self_made.source_window", "explore.self_made.window"): (
            explore.self_made.method != "proposer",
            "explore.self_made is proposer",
        ),
        ("explore.self_made.min_share",): (explore.self_made.method != "svs", "explore.self_made is svs"),
        ("explore.hint",): (explore.rationalise, "explore.rationalise is false"),
    }


def _of_learning(settings: PracticeSettings) -> Reads:
    explore, learn = settings.explore, settings.learn
    searched, learned, lost = (
        f"explore.search.method is {explore.search.method}",
        f"learn.method is {learn.method}",
        f"learn.loss is {learn.loss}",
    )
    return {
        ("learn.turn_discount",): (explore.turns > 1, searched),
        (
            "learn.credit",
            "learn.pass_k",
            "learn.shaping",
            "learn.outcome_coefficient",
            "learn.loss",
            "learn.clip_",
            "learn.covariance.",
            "learn.entropy.",
        ): (
            learn.method == "credit",
            learned,
        ),
        ("learn.pass_k",): (learn.method != "credit" or learn.credit == "pass_at_k", f"learn.credit is {learn.credit}"),
        ("learn.shaping_weight",): (learn.method != "credit" or learn.shaping != "none", "learn.shaping is none"),
        ("learn.outcome_coefficient",): (learn.method != "credit" or learn.credit in STEP_CREDIT, f"learn.credit is {learn.credit}"),
        ("learn.step_values",): (explore.is_search, searched),
        ("learn.clip_low",): (learn.method != "credit" or learn.loss not in ("capped", "kl_cov"), lost),
        ("learn.clip_high",): (learn.method != "credit" or learn.loss != "kl_cov", lost),
        ("learn.covariance.",): (learn.method != "credit" or learn.loss in ("clip_cov", "kl_cov"), lost),
        ("learn.covariance.low", "learn.covariance.high"): (learn.method != "credit" or learn.loss != "kl_cov", lost),
        ("learn.covariance.coefficient",): (learn.method != "credit" or learn.loss != "clip_cov", lost),
        ("learn.entropy.delta",): (learn.method != "credit" or learn.entropy.target is not None, "learn.entropy.target is None"),
        ("learn.length.penalty",): (bool(learn.length.buffer_tokens), "learn.length.buffer_tokens is 0"),
        ("learn.preference.",): (learn.method == "preference", learned),
        ("learn.preference.margin",): (
            learn.method != "preference" or learn.preference.loss == "simpo",
            f"learn.preference.loss is {learn.preference.loss}",
        ),
        ("learn.implicit_reward.",): (bool(learn.implicit_reward.coefficient), "learn.implicit_reward.coefficient is 0"),
    }


def _of_keeping(settings: PracticeSettings) -> Reads:
    """Of what is measured and kept, and of what learns before practice or beside it."""
    return {
        ("evaluation.thought.",): (bool(settings.evaluation.thought.budgets), "evaluation.thought.budgets is empty"),
        tuple(f"retention.{name}" for name in ("text", "choices", "n", "window_tokens")): (
            settings.retention.probe,
            "retention.probe is false",
        ),
        ("retention.gate.",): (bool(settings.retention.gate.every), "retention.gate.every is 0"),
        ("retention.gate.factor",): (
            settings.retention.gate.action in ("lower_rate", "raise_replay"),
            f"retention.gate.action is {settings.retention.gate.action}",
        ),
        ("retention.gate.divergence_n",): (settings.retention.gate.max_divergence is not None, "retention.gate.max_divergence is none"),
        ("retention.gate.max_loss", "retention.gate.max_perplexity_rise"): (
            settings.retention.probe or not settings.retention.gate.every,
            "retention.probe is false",
        ),
        ("retention.gate.max_falls",): (settings.retention.gate.action != "stop", "retention.gate.action is stop"),
        ("retention.divergence_n", "retention.gate", "retention.replay"): (bool(settings.steps), "steps is 0"),
        ("retention.replay.",): (bool(settings.retention.replay.ratio), "retention.replay.ratio is 0"),
        ("preferences.",): (bool(settings.preferences.steps), "preferences.steps is 0"),
        ("step_model.",): (settings.step_model.on, "step_model.on is false"),
    }
