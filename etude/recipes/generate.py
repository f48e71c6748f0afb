"""Generate: answer prompts from the command line, a file or standard input."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etude.decoding.decode import DecodingResult, decode
from etude.decoding.methods import METHODS
from etude.decoding.search import search_answers
from etude.device.machine import max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.engine.completion import Completion, Logprobs
from etude.engine.protocols import PrefixEngine
from etude.engine.streaming import TextStreamer
from etude.errors import UserError
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.recipes.calls import keywords_with, without_progress_bars
from etude.recipes.generate_settings import GenerateSettings, parse_generate
from etude.recipes.objects import machine_of, named_model
from etude.recipes.results import Answer, Answers
from etude.rollouts.prompts import render_prompts
from etude.rollouts.sampler import Items
from etude.rollouts.search.growing import Value
from etude.rollouts.thought import forced
from etude.settings.arguments import arguments_from, type_with_article
from etude.settings.unused import Sections, unread_in, unread_of_search
from etude.suites.retention_probe import logprobs_of
from etude.tasks.actions import add_instruction
from etude.tasks.task import Task, with_system
from etude.training.step_model_files import value_for

log = logging.getLogger(__name__)


@without_progress_bars()
def generate(
    model: Any,
    prompts: str | Sequence[str],
    settings: GenerateSettings | Mapping[str, Any] | None = None,
    *,
    write: Callable[[str], None] | None = None,
    done: Callable[[dict[str, Any]], None] | None = None,
    **more: Any,
) -> Answers:
    """Answer prompts and return a row for each; a text is one prompt.

    >>> generate("runs/first/model", "What is 2 + 3?", max_new_tokens=8)[0].text  # doctest: +SKIP

    `model` is a name, a path or a hub id, or a loaded model with its tokenizer, (model, tokenizer). Settings are keywords, or a mapping of
    dotted or nested names to plain values, as on the command line; or `GenerateSettings`, used as they are.

    Each row has `prompt`, `completions` and `finish`. A search gives one completion and adds `search`: the number of `answers` that it
    chose from (`refine`: the texts of all `turns`), the `tokens` sampled, and the `tree` as a list of nodes (`Tree.to_json`). Thoughts of
    fixed length add `thought`: `budget_tokens`, and for each completion `own_tokens` and `ends_taken_back`. A decoding method gives one
    completion or none and adds `decoding`: `samples`, `tokens` (texts), `sampled_tokens`, `agreement` (one value a token), `confidence` and
    `notes` (`etude.decoding.sample_pool.DecodedAnswer`).

    `write` receives the answer to a single prompt piece by piece while it is sampled. `done` receives every row in order, as soon as it and
    the rows before it are finished; with a search or a thought budget at the end.

    Raises UserError for prompts that are no text, for no prompt, for wrong settings and for a model that can't be loaded.
    """
    (model, pair), prompts = named_model(model), [prompts] if isinstance(prompts, str) else list(prompts)
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UserError(f"prompts[{number}] must be text, got {type_with_article(prompt)}")
    if not isinstance(settings, GenerateSettings):
        settings = parse_generate(model, arguments_from(keywords_with(settings, more), GenerateSettings))
    elif more:
        raise UserError("GenerateSettings are used as they are: change them with dataclasses.replace, or pass keywords alone")
    if not prompts:
        raise UserError("there is no prompt: give --prompt, --file or lines on standard input")
    also = ["num_samples"] if settings.search.method not in ("none", "samples") else []
    of_length: Sections = {("thought.",): "thought.budget_tokens is not set"}
    if settings.thought.budget_tokens is not None:
        of_length = {("max_new_tokens",): "thought.budget_tokens is set"}
    decoding = unread_in("decoding", settings.decoding, "method") | unread_in("kv_cache", settings.kv_cache, "policy")
    if settings.decoding.is_on and METHODS[settings.decoding.method].chooses:
        decoding = {**decoding, ("sampling.",): f"decoding.method {settings.decoding.method} chooses a sample (decoding.sampling)"}
    for unread in unread_of_search(settings, also, {**of_length, **decoding}):
        log.warning("unused settings: %s", unread)
    place = resolve_device(machine_of(pair, settings.machine))
    loaded, tokenizer = pair or load_model(model, device=place.device)
    engine = engine_at(place, loaded, tokenizer, settings.machine, settings.kv_cache.build_view(tokenizer))
    budget = settings.thought.budget_tokens
    room = max_prompt_tokens(loaded, settings.max_new_tokens if budget is None else settings.thought.most_tokens(budget))
    tasks = with_system([Task(prompt, origin=f"prompt {i + 1}") for i, prompt in enumerate(prompts)], settings.system)
    tasks = add_instruction(tasks, settings.instruction or "")
    rendered = render_prompts(tokenizer, tasks, room)
    streamed = TextStreamer(engine.text_of, write, settings.stop) if write and len(prompts) == settings.num_samples == 1 else None
    if settings.search.is_on:
        by_step_model = value_for(settings.search, model, loaded, place, settings.machine)
        rows = _searched(engine, prompts, list(zip(tasks, rendered, strict=True)), settings, room, by_step_model)
    elif budget is not None:
        rows = _thought(engine, prompts, rendered, settings, budget)
    elif settings.decoding.is_on:
        logprobs = logprobs_of(loaded, place, settings.machine)
        rows, done = _decoded(engine, prompts, list(zip(tasks, rendered, strict=True)), settings, room, logprobs, streamed, done), None
    else:
        rows, done = _plain(engine, prompts, rendered, settings, streamed, done), None
    if done:
        for row in rows:
            done(row)
    return Answers(map(Answer, rows))


def _plain(
    engine: PrefixEngine,
    prompts: Sequence[str],
    rendered: Sequence[tuple[int, ...]],
    settings: GenerateSettings,
    streamed: TextStreamer | None,
    done: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    waiting: dict[int, dict[str, Any]] = {}
    reported = 0

    def row_of(place: int, completions: Sequence[Completion]) -> dict[str, Any]:
        return {"prompt": prompts[place], "completions": [c.text for c in completions], "finish": [c.finish for c in completions]}

    def tell(place: int, completions: Sequence[Completion]) -> None:
        nonlocal reported
        waiting[place] = row_of(place, completions)
        while done and reported in waiting:
            done(waiting.pop(reported))
            reported += 1

    found = engine.generate(
        rendered,
        num_samples=settings.num_samples,
        max_new_tokens=settings.max_new_tokens,
        sampling=settings.sampling,
        seed=settings.seed,
        stop_strings=settings.stop,
        on_token=(lambda prompt, sample, token: streamed.put(token)) if streamed else None,
        on_complete=tell if done and not streamed else None,
    )
    if streamed:
        streamed.end(found[0][0].text)
        tell(0, found[0])
    return [row_of(*each) for each in enumerate(found)]


def _thought(
    engine: PrefixEngine, prompts: Sequence[str], rendered: Sequence[tuple[int, ...]], settings: GenerateSettings, budget: int
) -> list[dict[str, Any]]:
    places = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(settings.num_samples)]
    keys = [seed_for(settings.seed, *place) for place in places]
    of_all = [rendered[prompt] for prompt, _ in places]
    found = forced(engine, of_all, settings.thought, budget, sampling=settings.sampling, keys=keys)
    rows = []
    for number, prompt in enumerate(prompts):
        own = [answer for (place, _), answer in zip(places, found, strict=True) if place == number]
        thought = {
            "budget_tokens": budget,
            "own_tokens": [answer.own_tokens for answer in own],
            "ends_taken_back": [answer.ends_taken_back for answer in own],
        }
        texts = {"completions": [answer.text for answer in own], "finish": [answer.finish for answer in own]}
        rows.append({"prompt": prompt, **texts, "thought": thought})
    return rows


def _decoded(
    engine: PrefixEngine,
    prompts: Sequence[str],
    items: Items,
    settings: GenerateSettings,
    room: int,
    logprobs: Logprobs,
    streamed: TextStreamer | None,
    done: Callable[[dict[str, Any]], None] | None,
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def keep(part: Sequence[DecodingResult]) -> None:
        for each in part:
            rows.append(_decoded_row(engine, prompts[len(rows)], each))
            if done and not streamed:
                done(rows[-1])

    how: dict[str, Any] = {"heard": (lambda place, token: streamed.put(token)) if streamed else None}
    how |= {"max_new_tokens": settings.max_new_tokens, "sampling": settings.sampling, "stop_strings": settings.stop}
    names = settings.seed, "generate"
    found = decode(engine, items, settings.decoding, **how, room_tokens=room, logprobs=logprobs, names=names, done=keep)
    if streamed:
        streamed.end(found[0].answer.text or "")
        if done:
            done(rows[0])
    return rows


def _decoded_row(engine: PrefixEngine, prompt: str, found: DecodingResult) -> dict[str, Any]:
    answer = found.answer
    if answer.text is None:
        log.warning("no answer to %r: %s", prompt[:80], "; ".join(answer.notes))
    tokens = _pieces(engine, answer.tokens, answer.text or "")
    facts = {"samples": [sample.text for sample in found.samples], "tokens": tokens, "sampled_tokens": found.sampled_tokens}
    facts |= {"agreement": list(answer.agreement[: len(tokens)]), "confidence": answer.confidence, "notes": list(answer.notes)}
    given = ([], []) if answer.text is None else ([answer.text], [answer.finish])
    return {"prompt": prompt, "completions": given[0], "finish": given[1], "decoding": facts}


def _pieces(engine: PrefixEngine, tokens: Sequence[int], answer: str) -> list[str]:
    """Split the answer into the text that each token adds: a character of several tokens is with the last; a stop string is left out."""
    pieces, before = [], 0
    for end in range(1, len(tokens) + 1):
        text = engine.text_of(tokens[:end])
        is_last = end == len(tokens) or len(text) > len(answer)
        is_whole = is_last or not text.endswith("\ufffd")
        pieces.append(answer[before : len(text)] if is_whole else "")
        before = len(text) if is_whole else before
        if is_last:
            break
    return pieces


def _searched(
    engine: PrefixEngine, prompts: Sequence[str], items: Items, settings: GenerateSettings, room: int, by_step_model: Value | None
) -> list[dict[str, Any]]:
    how: dict[str, Any] = {name: getattr(settings, name) for name in ("num_samples", "max_new_tokens", "sampling")}
    names = settings.seed, "generate"
    found = search_answers(engine, items, settings.search, **how, room_tokens=room, names=names, by_step_model=by_step_model)
    return [
        {
            "prompt": prompt,
            "completions": [answer.text],
            "finish": [answer.finish],
            "search": {**answer.found, "tokens": answer.sampled_tokens} | ({"tree": answer.tree.to_json()} if answer.tree else {}),
        }
        for prompt, answer in zip(prompts, found, strict=True)
    ]
