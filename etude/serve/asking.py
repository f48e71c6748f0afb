"""A request → what it asks of the answers to its prompts, within the limits of the server."""

import secrets

from etude.decoding.way import Way, check_alone
from etude.engine.completion import Tokens
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.rollouts.thinking import Thought
from etude.serve.aliases import alias
from etude.serve.model import Asked, Model
from etude.serve.options import OPTIONS, options_of
from etude.serve.protocol import Common, Refused
from etude.serve.settings import ServeSettings


def asked(body: Common, prompt: Tokens, model: Model, settings: ServeSettings) -> Asked:
    """Return what a request asks of a prompt's answers. Raises Refused for what can't be done."""
    options = options_of(alias(body.model, model.name), {name: getattr(body, name) for name in OPTIONS})
    kv_cache, search_samples = options.pop("kv_cache"), options["search"].num_samples
    longest = _longest(body, prompt, options["thought"], model.engine.positions, settings.max_new_tokens)
    way = Way(_sampling(body), longest, _stops(body, model), **options, search_samples=search_samples)
    found = Asked(way, body.top, kv_cache, secrets.randbits(63) if body.seed is None else body.seed)
    _check_alone(body, found)
    _check_size(way, settings.max_samples * settings.max_new_tokens)
    _check_search(way, model)
    return found


def _sampling(body: Common) -> Sampling:
    given = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k", "min_p") if getattr(body, name) is not None}
    try:
        return Sampling(**given)
    except UserError as error:
        raise Refused(str(error), param=str(error).partition(" ")[0]) from None


def _stops(body: Common, model: Model) -> tuple[str, ...]:
    """Return the texts that end an answer, without those of end tokens, which harnesses name too: every answer ends there."""
    ends = {model.tokenizer.decode([token], skip_special_tokens=False) for token in model.engine.end_tokens}
    return tuple(text for text in body.stops if text not in ends)


def _longest(body: Common, prompt: Tokens, thought: Thought, positions: int, most: int) -> int:
    """Return how many tokens an answer may have, with its thought. Raises Refused for more than there is room for."""
    longest = body.longest
    if longest is not None and longest > most:
        raise Refused(f"max_tokens is {longest}: this server answers with {most} at most", param="max_tokens")
    if thought.budget_tokens is not None:
        needed = thought.most_tokens(thought.budget_tokens)
        allowed = longest if body.names_longest and longest is not None else most
        if needed > allowed:
            limit = "max_tokens" if allowed < most else "the most of this server"
            text = f"thought.budget_tokens {thought.budget_tokens} takes up to {needed} tokens with its answer, and {limit} is {allowed}"
            raise Refused(f"{text}: think less", param="thought")
        longest = needed
    room = positions - len(prompt)
    if room < 1 or (longest is not None and longest > room):
        text = f"the prompt has {len(prompt)} tokens and the model room for {positions}, prompt and answer"
        raise Refused(f"{text}: shorten it, or ask for fewer tokens", param="messages", code="context_length_exceeded")
    return min(most if longest is None else longest, room)


def _check_alone(body: Common, found: Asked) -> None:
    """Raise Refused for options that exclude each other, or another field."""
    way, kv_cache = found.way, found.kv_cache
    try:
        check_alone(way.decoding, way.search, way.thought, stop="stop" if way.stop else "")
    except UserError as error:
        raise Refused(str(error), param="stop" if way.stop else "decoding") from None
    if way.name and kv_cache.is_on:
        raise Refused(f"{way.name} and kv_cache.policy {kv_cache.policy} exclude each other: leave one out", param="kv_cache")
    if way.gives_one and body.n > 1:
        raise Refused(f"{way.name} gives one answer: leave n out", param="n")
    if found.name and body.wants_logprobs:
        raise Refused(f"there are no log-probs of answers by {found.name}: leave them out", param="logprobs")


def _check_size(way: Way, most: int) -> None:
    """Raise Refused for a method or a search that samples more than `most` tokens."""
    each, number = way.max_new_tokens, way.most_sampled
    budget = way.search.budget_tokens if way.search.is_on else None
    if max(number, min(number * each, budget or number * each)) <= most:
        return
    fix = "fewer answers or tokens" + (", or set search.budget_tokens" if way.search.is_on and number <= most else "")
    raise Refused(
        f"{way.name} samples up to {number} answers of {each} tokens, and this server {most} tokens for a request (max_samples times "
        f"max_new_tokens): ask for {fix}",
        param="search" if way.search.is_on else "decoding",
    )


def _check_search(way: Way, model: Model) -> None:
    """Raise Refused for a search that can't be done."""
    if way.search.needs_step_model and model.step_value is None:
        raise Refused("search: this model has no step model: leave search.value and search.choose out", param="search")
    try:
        way.search.check(way.sampling)
    except UserError as error:
        raise Refused(str(error).replace("sampling.temperature", "temperature"), param="temperature") from None
