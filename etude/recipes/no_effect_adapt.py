"""Find changed settings of an adaptation that nothing reads (see `etude.settings.unused`)."""

from etude.recipes.adapt_settings import AdaptSettings, adapt_defaults
from etude.settings.unused import unread_among

_BY_SCORE = ("selection.found", "selection.samples", "domain.")
"""Settings that are read only if documents are scored by examples of the domain."""


def without_effect(settings: AdaptSettings) -> list[str]:
    """Return the changed settings that nothing reads, in groups with the reason: `study.mixing: study.order is mixed`."""
    study, selection = settings.study, settings.selection
    num_stages, order = len(study.stages()), f"study.order is {study.order}"
    learns_both = num_stages == 2 or study.order == "mixed"
    replays = study.replay_share > 0
    sections = {
        ("tasks.", "study.task_format"): (study.needs_tasks, order),
        ("study.tasks_share",): (learns_both, order),
        ("study.mixing", "study.later_stage_lr_factor"): (num_stages == 2, order),
        ("general.",): (replays, "study.replay_share is 0"),
        ("selection.replay_tokens",): (
            replays and not settings.has_general,
            "general text is read from a place of its own" if replays else "study.replay_share is 0",
        ),
        _BY_SCORE: (selection.method not in ("all", "random"), f"selection.method is {selection.method}"),
        ("selection.workers",): (selection.method != "perplexity", "selection.method is perplexity, which scores in one process"),
        ("suite.glossary_n",): (bool(settings.suite.glossary), "suite.glossary names no file"),
    }
    unread = {prefixes: why for prefixes, (is_read, why) in sections.items() if not is_read}
    return unread_among(settings, adapt_defaults(), unread)
