"""Evaluate: measure any saved model on suites, with the verifiers of a practice run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from etude.console.reporter import Reporter, Silent
from etude.decoding.decode import decode
from etude.decoding.search import search_answers
from etude.device.limits import within_limits
from etude.device.machine import max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.engine.completion import Logprobs
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import GREEDY
from etude.errors import UserError
from etude.evaluation.judge_preference import Compare, judge_preference
from etude.evaluation.measure import Measurement, OtherAnswer, Suite, measure
from etude.models.load import describe_weights, load_model
from etude.recipes.calls import keywords_with, reporter_for, without_progress_bars
from etude.recipes.evaluate_settings import EvaluateSettings, parse_evaluate
from etude.recipes.objects import Objects, Pair, machine_of, named_model
from etude.recipes.results import Result
from etude.rewards.functions import RewardFunction
from etude.rewards.judge import JudgeReward, build_messages
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.search.growing import Value
from etude.rollouts.search.settings import REFINE
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.settings.unused import unread_in, unread_of_search
from etude.suites.retention_probe import logprobs_of
from etude.tasks.actions import Actions
from etude.tasks.sources import TaskSource, load_tasks
from etude.training.chat_model import open_chat_model
from etude.training.data import check_golds, load_suites, render_suites, train_size
from etude.training.parse import parse_practice
from etude.training.run_folder import RunFolder
from etude.training.step_model_files import value_for


@without_progress_bars()
def evaluate(
    model: Any,
    settings: EvaluateSettings | Mapping[str, Any] | None = None,
    *,
    tasks: Any = None,
    reward: Any = None,
    reward_weights: Sequence[float] | Mapping[str, float] | None = None,
    data: Path | str | None = None,
    verbose: bool | None = None,
    reporter: Reporter | None = None,
    **more: Any,
) -> Result:
    """Measure a model and return `{"model", "weights", "seed", "evaluation": rows, "items": greedy answers by suite}`.

    >>> evaluate("runs/first/model", tasks="test.jsonl").accuracy  # doctest: +SKIP

    `model` is a name, a path or a hub id, or a loaded model with its tokenizer, (model, tokenizer). `tasks` are texts, dictionaries,
    `Task`s, a data set or a file; or suites by name. `reward` is a function, several, or a verifier's name, as in `practice`. Settings are
    keywords, or a mapping of dotted or nested names to plain values, as on the command line; or `EvaluateSettings`, used as they are.
    `verbose` prints progress; without it, in a terminal or a notebook only. Raises UserError for wrong settings, and for tasks or a model
    that can't be loaded.
    """
    with TemporaryDirectory() as folder:
        objects = Objects(Path(folder), keywords_with(None if isinstance(settings, EvaluateSettings) else settings, more))
        objects.take_suites(tasks, reward, reward_weights)
        name, pair = named_model(model)
        if not isinstance(settings, EvaluateSettings):
            settings = parse_evaluate(name, arguments_from(objects.settings, EvaluateSettings))
        elif objects.settings:
            raise UserError("EvaluateSettings are used as they are: change them with dataclasses.replace, or pass keywords alone")
        with objects.given.written(RunFolder(Path(folder))):
            reporter = reporter or reporter_for(verbose)
            return Result(_evaluate(name, pair, settings, objects.function, Path(data) if data else None, reporter))


AnswersBeside = Callable[[PrefixEngine, int, Suite], Sequence[OtherAnswer]]
"""The engine of the model that is measured, the longest answer in tokens, and a suite → another program's answers to the suite's tasks."""


def evaluate_beside(
    model: str, settings: EvaluateSettings, name: str, answers: AnswersBeside, data: Path | None = None, reporter: Reporter | None = None
) -> Result:
    """Measure a model and, on the same tasks, another program's `answers`, whose measures begin with `name`."""
    return Result(_evaluate(model, None, settings, None, data, reporter or Silent(), beside={name: answers}))


def _evaluate(
    model: str,
    pair: Pair | None,
    settings: EvaluateSettings,
    function: RewardFunction | None,
    data: Path | None,
    reporter: Reporter,
    beside: Mapping[str, AnswersBeside] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measure a model, loaded as `pair` or by its name, and the answers of other programs `beside` it."""
    unread: dict[tuple[str, ...], str] = unread_in("decoding", settings.decoding, "method")
    unread |= unread_in("kv_cache", settings.kv_cache, "policy")
    unread |= {} if settings.evaluation.thought.budgets else {("evaluation.thought.",): "evaluation.thought.budgets is empty"}
    unread |= {} if settings.judge.model is not None else {("judge.",): "there is no judge.model"}
    for sentence in unread_of_search(settings, more=unread):
        reporter.say(f"unused settings: {sentence}")
    suites, train = _suites(settings, data)
    place = resolve_device(machine_of(pair, settings.machine))
    loaded, tokenizer = pair or load_model(model, device=place.device)
    engine = engine_at(place, loaded, tokenizer, settings.machine, settings.kv_cache.build_view(tokenizer))
    longest = settings.evaluation.max_new_tokens or settings.max_new_tokens
    sizes = longest, settings.evaluation.pass_n, settings.evaluation.num_samples
    how = Measurement(*sizes, settings.sampling, settings.seed, settings.evaluation.thought, settings.max_unscored_share)
    room = max_prompt_tokens(loaded, max(longest, settings.evaluation.thought.longest))
    by_step_model = value_for(settings.search, model, loaded, place, settings.machine)
    compare: Compare | None = None
    if settings.judge.model is not None:
        compare = JudgeReward(open_chat_model(settings.judge, place, settings.machine, build_messages("?")), settings.judge).judge
    pages = []
    limits: dict[str, Any] = {"isolate": settings.isolate_verifiers, "right_at": settings.right_at, "function": function}
    feedback = VerifierReward(settings.timeout_seconds, **limits)
    with within_limits(settings.machine), feedback as outcome:
        evaluated = [task for tasks in suites.values() for task in tasks]
        if warning := outcome.prepare(evaluated):
            reporter.say(warning)
        check_golds(evaluated, outcome.judge)
        for suite in render_suites(suites, tokenizer, room, train, outcome.judge):
            reporter.measuring(Path(model).name, suite.name, len(suite.tasks))
            ways: dict[str, Any] = {name: partial(answers, engine, longest) for name, answers in beside.items()}
            if settings.search.is_on:
                ways["search"] = partial(_answers, engine, settings, longest, room, by_step_model)
            if settings.decoding.is_on:
                ways["decoding"] = partial(_decoded, engine, settings, longest, room, logprobs_of(loaded, place, settings.machine))
            page = measure(engine, suite, how, outcome.judge, ways=ways)
            if compare:
                texts = [item["text"] for item in page["items"]], [item["decoding"]["text"] for item in page["items"]]
                found = judge_preference(suite.tasks, *texts, compare)
                page["row"] |= {f"decoding_{name}": value for name, value in found.items()}
            pages.append(page)
            reporter.measured(Path(model).name, [page["row"]])
    return {
        "model": model,
        "weights": describe_weights(model) if pair is None else f"{model}, as it was passed",
        "seed": settings.seed,
        "evaluation": [{"model": model, **page["row"]} for page in pages],
        "items": {page["suite"]: page["items"] for page in pages},
    }


def _answers(
    engine: PrefixEngine, settings: EvaluateSettings, longest: int, room: int, by_step_model: Value | None, suite: Suite
) -> list[OtherAnswer]:
    """Answer each task by a search."""
    items = list(zip(suite.tasks, suite.prompts, strict=True))
    how: dict[str, Any] = {"num_samples": settings.evaluation.num_samples, "max_new_tokens": longest, "room_tokens": room}
    names = settings.seed, "evaluation by search", suite.name
    sampling = GREEDY if settings.search.method == REFINE else settings.sampling  # as for greedy answers, so that only revising differs
    found = search_answers(engine, items, settings.search, **how, sampling=sampling, names=names, by_step_model=by_step_model)
    return [OtherAnswer(answer.text, answer.sampled_tokens) for answer in found]


def _decoded(
    engine: PrefixEngine, settings: EvaluateSettings, longest: int, room: int, logprobs: Logprobs, suite: Suite
) -> list[OtherAnswer]:
    """Answer each task by a decoding method."""
    items = list(zip(suite.tasks, suite.prompts, strict=True))
    names = settings.seed, "evaluation by decoding", suite.name
    sizes: dict[str, Any] = {"max_new_tokens": longest, "room_tokens": room}
    found = decode(engine, items, settings.decoding, **sizes, logprobs=logprobs, names=names)
    return [OtherAnswer(each.answer.text, each.sampled_tokens, each.answer.confidence) for each in found]


def _suites(settings: EvaluateSettings, data: Path | None) -> tuple[dict[str, Any], list[Any]]:
    """Load the suites by name, and the training tasks for the trivial baselines (at most 500 of a family or function)."""
    judged: dict[str, Any] = {"verifier": settings.verifier, "right_at": settings.right_at}
    judged |= {"columns": settings.columns, "actions": Actions(instruction=settings.instruction)}
    if settings.recipe is None:
        if not settings.evaluation.path:
            raise UserError("there is nothing to measure: set --evaluation.path to one or more files, or --recipe to a configuration")
        source = TaskSource(path=settings.evaluation.path, **judged)
        return load_suites(settings.evaluation, source, "", settings.seed, data, settings.system), []
    recipe = parse_practice(find_configuration("practice", settings.recipe), [])
    tasks = replace(recipe.tasks, **judged)
    suites = load_suites(settings.evaluation, tasks, Path(settings.recipe).stem, settings.seed, data, settings.system)
    size = train_size(recipe)
    n = min(size, 500) if size and (tasks.family or tasks.function) else size
    train = load_tasks(tasks, split="train", n=n, seed=settings.seed, data=data)
    return suites, train
