"""Prompts → answers, whatever the way: for a server's requests and other people's harnesses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etude.decoding.decode import decode
from etude.decoding.search import search_answers
from etude.decoding.way import Way
from etude.engine.completion import Finish, Logprobs
from etude.engine.protocols import PrefixEngine, View
from etude.rollouts.search.growing import Value
from etude.rollouts.thought import forced
from etude.rollouts.tree_search import Items


@dataclass(frozen=True)
class Answered:
    """An answer to a prompt."""

    text: str
    """Empty if a method of decoding abstains."""
    finish: Finish
    num_tokens: int
    """Tokens that were sampled for it."""


def answers(
    engine: PrefixEngine,
    items: Items,
    way: Way,
    *,
    keys: Sequence[Sequence[int]],
    names: Sequence[object],
    logprobs: Logprobs,
    by_step_model: Value | None = None,
    view: View | None = None,
) -> list[list[Answered]]:
    """Answer each task, given with its prompt, once for each of its `keys`, or once where a way gives one answer.

    `keys` are those of plain answers and of thoughts; the random numbers of a method and of a search are keyed by `names`. `logprobs`
    computes the model's own likelihoods. `view` replaces the engine's own for plain answers.
    """
    room = engine.positions - way.max_new_tokens
    how: dict[str, Any] = {"max_new_tokens": way.max_new_tokens, "sampling": way.sampling}
    if way.search.is_on:
        how |= {"num_samples": way.search_samples, "names": names, "room_tokens": room, "by_step_model": by_step_model}
        found = search_answers(engine, items, way.search, **how)
        return [[Answered(each.text, each.finish, each.sampled_tokens)] for each in found]
    if way.decoding.is_on:
        how |= {"stop_strings": way.stop, "names": names, "room_tokens": room, "logprobs": logprobs}
        results = decode(engine, items, way.decoding, **how)
        return [[Answered(each.answer.text or "", each.answer.finish or "stop", each.sampled_tokens)] for each in results]
    prompts = [prompt for _, prompt in items]
    if way.thought.is_on:
        return _after_thoughts(engine, prompts, way, keys)
    completions = engine.generate(prompts, keys=keys, stop_strings=way.stop, view=view, **how)
    return [[Answered(each.text, each.finish, len(each.tokens)) for each in own] for own in completions]


def _after_thoughts(
    engine: PrefixEngine, prompts: Sequence[tuple[int, ...]], way: Way, keys: Sequence[Sequence[int]]
) -> list[list[Answered]]:
    places = [(place, key) for place, own in enumerate(keys) for key in own]
    budget = way.thought.budget_tokens
    assert budget is not None
    asked = [prompts[place] for place, _ in places]
    found = forced(engine, asked, way.thought, budget, sampling=way.sampling, keys=[key for _, key in places])
    rows: list[list[Answered]] = [[] for _ in prompts]
    for (place, _), each in zip(places, found, strict=True):
        rows[place].append(Answered(each.text, each.finish, each.own_tokens))
    return rows
