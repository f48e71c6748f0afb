"""Settings of practice that were changed and that nothing reads as the others are.

No mistake, since a recipe may be tried either way with one setting changed, but a person should know: told when a run begins.
"""

from etude.configuration import dotted, resolved
from etude.explore.search.settings import REFINE
from etude.recipes.settings import PracticeSettings, practice_defaults

_READ = {
    "samples": (),
    "beam": ("width", "beams", "value", "rollouts", "budget_tokens", "steps."),
    "mcts": ("width", "simulations", "exploration", "to_end", "value", "budget_tokens", "steps."),
    "tree": ("width", "chains", "rounds", "forks", "budget_tokens"),
    "vine": ("width", "chains", "budget_tokens", "steps."),
    REFINE: ("steps.",),
}
"""Which settings of a search each method reads."""


def without_effect(settings: PracticeSettings) -> list[str]:
    """For each group of such settings its names and why: `judge.model: feedback is outcome`."""
    defaults, own = practice_defaults(), dotted(resolved(settings))
    changed = [name for name, value in own.items() if name in defaults and value != defaults[name]]
    found = []
    for prefixes, why in _unread(settings).items():
        names = [name for name in changed if name.startswith(prefixes)]
        if names:
            found.append(f"{', '.join(names)}: {why}")
    return found


def _unread(settings: PracticeSettings) -> dict[tuple[str, ...], str]:
    """Beginnings of names that nothing reads, and why."""
    explore, learn, method = settings.explore, settings.learn, settings.explore.search.method
    read = _READ[method] + (("steps.",) if settings.step_model.on else ())
    searching = {name for names in _READ.values() for name in names} - set(read)
    searched, learned = f"explore.search.method is {method}", f"learn.method is {learn.method}"
    sections = {
        ("judge.",): ("judge" in settings.feedback_parts, f"feedback is {settings.feedback}"),
        tuple(f"explore.search.{name}" for name in sorted(searching)): (False, searched),
        ("explore.refine.",): (method == REFINE, searched),
        ("explore.hint",): (explore.rationalise, "explore.rationalise is false"),
        ("learn.turn_discount",): (explore.turns > 1, searched),
        ("learn.credit", "learn.loss", "learn.clip_"): (learn.method == "credit", learned),
        ("learn.preference.",): (learn.method == "preference", learned),
        ("learn.implicit_reward.",): (bool(learn.implicit_reward.coefficient), "learn.implicit_reward.coefficient is 0"),
        ("step_model.",): (settings.step_model.on, "step_model.on is false"),
    }
    return {prefixes: why for prefixes, (is_read, why) in sections.items() if not is_read}
