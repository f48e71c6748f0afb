"""Evaluate: any saved model on suites, judged as a practice run judges its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from etude.configuration import arguments_from, dotted, find_configuration, parse, resolved
from etude.decoding.decode import decode
from etude.decoding.settings import ReliableDecoding
from etude.engine.completion import Logprobs
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError, at_least
from etude.evaluation.measure import Answered, Measurement, Suite, measure
from etude.evaluation.preferred import Compare, preferred
from etude.evaluation.settings import Evaluation
from etude.explore.search.growing import Value
from etude.explore.search.settings import REFINE
from etude.explore.thought import Thoughts
from etude.feedback.judge import JudgeFeedback, Judging, put
from etude.feedback.outcome import OutcomeFeedback
from etude.feedback.unscored import check_max_share
from etude.longcontext.settings import EngineView
from etude.models import describe, load_model
from etude.recipes.answering import SHORT, AnswerSearch, answered
from etude.recipes.asking import as_asked, only_asking, remembered
from etude.recipes.chat import ready
from etude.recipes.limits import within_limits
from etude.recipes.machine import Machine, decide, engine_at, room_tokens
from etude.recipes.materials import check_golds, load_suites, render_suites, train_size
from etude.recipes.no_effect import unread_of_decoding, unread_of_search, unread_of_view
from etude.recipes.retention import logprobs_of
from etude.recipes.settings import parse_practice
from etude.recipes.step_models import value_for
from etude.tasks.actions import Actions
from etude.tasks.sources import TaskSource, load_tasks
from etude.watching import Quiet, Watcher

THOUGHT = {f"thought.{each.name}": f"evaluation.thought.{each.name}" for each in fields(Thoughts)}
"""What `--thought.budgets` and the like are on the command line."""


@dataclass(frozen=True)
class EvaluateSettings:
    """What to measure a model on, and how.

    What is not said is the recipe's, if one is named, its defaults included; without a recipe the model is asked as its folder remembers.
    """

    recipe: str | None = None
    """A practice configuration (name or YAML) whose tasks, evaluation and way of asking are taken over."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    verifier: str | None = None
    """Who says what is right, whatever the items say: exact, numeric, choice, math or file.py:function."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, answer, ...) to the files' columns."""
    system: str | None = None
    """System message put before every prompt."""
    instruction: str | None = None
    """What stands behind every question, such as the form that the answer is to have."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    search: AnswerSearch = field(default_factory=AnswerSearch)
    """Beside greedy answers, also some that are searched for; `samples` are evaluation.num_samples."""
    decoding: ReliableDecoding = field(default_factory=ReliableDecoding)
    """Beside greedy answers, also some that are made of several, greedily."""
    judge: Judging = field(default_factory=lambda: Judging(how="pairwise"))
    """Who says which of two answers to a question is better, the greedy one or that of the method of decoding; nobody unless there is a
    judge.model."""
    engine: EngineView = field(default_factory=EngineView)
    seed: int = 0
    right_at: float | None = None
    """The score from which on an answer is right, whatever the verifier says of that: tasks.right_at."""
    timeout_seconds: float = 5.0
    max_unscored_share: float = 0.1
    """Measuring stops with the reason where more of a suite's answers than this share have no score, two apart; 1 never."""
    isolate_verifiers: bool = True
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("max_new_tokens", self.max_new_tokens, 1)
        check_max_share(self.max_unscored_share)
        self.search.check(self.sampling)
        self.engine.check_search("search.method", self.search.method)
        if self.judge.model is not None and not self.decoding.is_on:
            raise UserError("judge.model compares answers of a method of decoding with greedy ones: choose a --method, or leave it out")
        if self.judge.how != "pairwise":
            raise UserError(f"judge.how is {self.judge.how}, but here answers are compared: leave it out")
        if self.search.method == "samples":
            at_least("evaluation.num_samples (for search.method samples)", self.evaluation.num_samples, 2)


def parse_evaluate(model: str, overrides: Sequence[str]) -> EvaluateSettings:
    """Settings from overrides, before those of the recipe that they name, or else those that the model's folder remembers."""
    return parse(EvaluateSettings, remembered(model), overrides, adjust=_with_recipe, short=SHORT | THOUGHT)


def _with_recipe(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    asked = only_asking(values)
    if "recipe" not in given:
        return asked
    recipe = parse_practice(find_configuration("practice", given["recipe"]), [])
    taken = as_asked(recipe) | {"evaluation": resolved(recipe.evaluation), "seed": recipe.seed}
    taken |= {"timeout_seconds": recipe.timeout_seconds, "isolate_verifiers": recipe.isolate_verifiers}
    taken |= {"max_unscored_share": recipe.max_unscored_share}
    return {**asked, **dotted(taken), "verifier": recipe.tasks.verifier, "right_at": recipe.tasks.right_at, "columns": recipe.tasks.columns}


def evaluate(
    model: str,
    settings: EvaluateSettings | Mapping[str, Any] | None = None,
    *,
    data: Path | str | None = None,
    watcher: Watcher | None = None,
) -> dict[str, Any]:
    """`{"model", "weights", "seed", "evaluation": rows, "items": greedy answers by suite}`.

    `settings` are dotted ones with plain values, as the command takes them, or `EvaluateSettings`, which are used as they stand.

    >>> evaluate("runs/first/model", {"evaluation.path": ["test.jsonl"]})  # doctest: +SKIP
    """
    if not isinstance(settings, EvaluateSettings):
        settings = parse_evaluate(model, arguments_from(settings or {}))
    watcher = watcher or Quiet()
    unread: dict[tuple[str, ...], str] = unread_of_decoding(settings.decoding) | unread_of_view(settings.engine)
    unread |= {} if settings.evaluation.thought.budgets else {("evaluation.thought.",): "evaluation.thought.budgets is empty"}
    unread |= {} if settings.judge.model is not None else {("judge.",): "there is no judge.model"}
    for sentence in unread_of_search(settings, more=unread):
        watcher.say(f"without effect: {sentence}")
    suites, train = _suites(settings, Path(data) if data else None)
    place = decide(settings.machine)
    loaded, tokenizer = load_model(model, device=place.device)
    engine = engine_at(place, loaded, tokenizer, settings.machine, settings.engine)
    longest = settings.evaluation.max_new_tokens or settings.max_new_tokens
    sizes = longest, settings.evaluation.pass_n, settings.evaluation.num_samples
    how = Measurement(*sizes, settings.sampling, settings.seed, settings.evaluation.thought, settings.max_unscored_share)
    room = room_tokens(loaded, max(longest, settings.evaluation.thought.longest))
    by_step_model = value_for(settings.search, model, loaded, place, settings.machine)
    compare: Compare | None = None
    if settings.judge.model is not None:
        compare = JudgeFeedback(ready(settings.judge, place, settings.machine, put("?")), settings.judge).judge
    pages = []
    feedback = OutcomeFeedback(settings.timeout_seconds, is_isolated=settings.isolate_verifiers, right_at=settings.right_at)
    with within_limits(settings.machine), feedback as outcome:
        check_golds([task for tasks in suites.values() for task in tasks], outcome.judge)
        for suite in render_suites(suites, tokenizer, room, train, outcome.judge):
            watcher.measuring(Path(model).name, suite.name, len(suite.tasks))
            ways: dict[str, Any] = {}
            if settings.search.is_on:
                ways["search"] = partial(_answers, engine, settings, longest, room, by_step_model)
            if settings.decoding.is_on:
                ways["decoding"] = partial(_decoded, engine, settings, longest, room, logprobs_of(loaded, place, settings.machine))
            page = measure(engine, suite, how, outcome.judge, ways=ways)
            if compare:
                texts = [item["text"] for item in page["items"]], [item["decoding"]["text"] for item in page["items"]]
                found = preferred(suite.tasks, *texts, compare)
                page["row"] |= {f"decoding_{name}": value for name, value in found.items()}
            pages.append(page)
            watcher.measured(Path(model).name, [page["row"]])
    return {
        "model": model,
        "weights": describe(model),
        "seed": settings.seed,
        "evaluation": [{"model": model, **page["row"]} for page in pages],
        "items": {page["suite"]: page["items"] for page in pages},
    }


def _answers(
    engine: TransformersEngine, settings: EvaluateSettings, longest: int, room: int, by_step_model: Value | None, suite: Suite
) -> list[Answered]:
    """What a search answers to each task, and the tokens that it sampled."""
    items = list(zip(suite.tasks, suite.prompts, strict=True))
    how: dict[str, Any] = {"num_samples": settings.evaluation.num_samples, "max_new_tokens": longest, "room_tokens": room}
    names = settings.seed, "evaluation by search", suite.name
    sampling = GREEDY if settings.search.method == REFINE else settings.sampling  # beside greedy answers, so that revising alone differs
    found = answered(engine, items, settings.search, **how, sampling=sampling, names=names, by_step_model=by_step_model)
    return [Answered(answer.text, answer.sampled_tokens) for answer in found]


def _decoded(
    engine: TransformersEngine, settings: EvaluateSettings, longest: int, room: int, logprobs: Logprobs, suite: Suite
) -> list[Answered]:
    """What a method of decoding answers to each task, and the tokens that were drawn for it."""
    items = list(zip(suite.tasks, suite.prompts, strict=True))
    names = settings.seed, "evaluation by decoding", suite.name
    sizes: dict[str, Any] = {"max_new_tokens": longest, "room_tokens": room}
    found = decode(engine, items, settings.decoding, **sizes, logprobs=logprobs, names=names)
    return [Answered(each.answer.text, each.sampled_tokens, each.answer.confidence) for each in found]


def _suites(settings: EvaluateSettings, data: Path | None) -> tuple[dict[str, Any], list[Any]]:
    """Suites by name, and the training tasks that the trivial baselines learn from: of a family or function no more than 500."""
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
