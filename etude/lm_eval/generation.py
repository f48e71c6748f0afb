"""A task's generation_kwargs → how etude answers its prompts."""

from collections.abc import Callable, Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs

from etude.decoding.methods import METHODS
from etude.decoding.way import Way, check_alone
from etude.engine.sampling import GREEDY, Sampling
from etude.errors import UserError
from etude.lm_eval.settings import HarnessSettings
from etude.rollouts.search.settings import REFINE

_SAMPLING = ("temperature", "top_p", "top_k", "min_p")
_READ = ("until", "do_sample", "max_gen_toks", *_SAMPLING)


def way_of(given: Mapping[str, Any], settings: HarnessSettings, is_end: Callable[[str], bool]) -> Way:
    """Return how prompts with these generation_kwargs are answered. `is_end` tells texts of end tokens, which end every answer anyway.

    Raises UserError for what etude does not know, and for stop texts or greedy decoding that the settings exclude.
    """
    asked = normalize_gen_kwargs(dict(given), settings.max_gen_toks)
    if unknown := [name for name in asked if name not in _READ]:
        raise UserError(f"generation_kwargs {unknown[0]} is nothing that etude's engine knows: it takes {', '.join(_READ)}")
    sampling = Sampling(**{name: asked[name] for name in _SAMPLING if name in asked}) if asked["do_sample"] else GREEDY
    stop = tuple(text for text in asked["until"] if text and not is_end(text))
    _check(settings, sampling, stop)
    budget, longest = settings.thought.budget_tokens, asked["max_gen_toks"]
    how: dict[str, Any] = {name: getattr(settings, name) for name in ("decoding", "search", "thought")}
    most = longest if budget is None else settings.thought.most_tokens(budget)
    return Way(sampling, most, stop, search_samples=settings.num_samples, **how)


def _check(settings: HarnessSettings, sampling: Sampling, stop: tuple[str, ...]) -> None:
    until = f"until {list(stop)}" if stop else ""
    try:
        check_alone(settings.decoding, settings.search, settings.thought, stop=until)
        settings.search.check(sampling)
    except UserError as error:
        fix = "--gen_kwargs until=" if until in str(error) and until else "--gen_kwargs do_sample=true,temperature=1"
        raise UserError(f"{error} (for all tasks: {fix})") from None


def asks_again(settings: HarnessSettings) -> str:
    """Return the setting by which the model is asked again about its answers, and so in its chat template; empty if there is none."""
    method = settings.decoding.method
    if settings.decoding.is_on and not METHODS[method].chooses and "final_norm" not in METHODS[method].reads:
        return f"decoding.method {method}"
    return f"search.method {REFINE}" if settings.search.method == REFINE else ""
