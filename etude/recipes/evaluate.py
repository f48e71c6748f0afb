"""Evaluate: any saved model on suites, judged as a practice run judges its own."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.configuration import find_configuration
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.evaluation.measure import Measurement, measure
from etude.feedback.outcome import OutcomeFeedback
from etude.models import describe, load_model
from etude.recipes.machine import decide, engine_at, room_tokens
from etude.recipes.materials import load_suites, render_suites
from etude.recipes.settings import Evaluation, Machine, PracticeSettings, parse_practice
from etude.tasks.sources import TaskSource, load_tasks
from etude.watching import Quiet, Watcher


@dataclass(frozen=True)
class EvaluateSettings:
    """What to measure a model on, and how."""

    recipe: str | None = None
    """A practice configuration (name or YAML) whose tasks, system message and evaluation are taken over."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    verifier: str | None = None
    """Who says what is right, where the files do not: exact, numeric, choice, math or file.py:function."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, answer, ...) to the files' columns."""
    system: str | None = None
    """System message put before every prompt."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    timeout_seconds: float = 5.0
    machine: Machine = field(default_factory=Machine)


def evaluate(
    model: str, settings: EvaluateSettings | None = None, *, data: Path | str | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """`{"model", "weights", "seed", "evaluation": rows, "items": greedy answers by suite}`."""
    settings, watcher = settings or EvaluateSettings(), watcher or Quiet()
    folder = Path(data) if data else None
    recipe = _recipe(settings.recipe)
    suites, train = _suites(settings, recipe, folder)
    place = decide(settings.machine)
    loaded, tokenizer = load_model(model, device=place.device)
    engine = engine_at(place, loaded, tokenizer, settings.machine)
    longest = settings.evaluation.max_new_tokens or (recipe.explore.max_new_tokens if recipe else settings.max_new_tokens)
    how = Measurement(longest, settings.evaluation.pass_n, settings.evaluation.num_samples, settings.sampling, settings.seed)
    room = room_tokens(loaded, longest)
    pages = []
    with OutcomeFeedback(settings.timeout_seconds) as outcome:
        for suite in render_suites(suites, tokenizer, room, train, outcome.judge):
            watcher.measuring(Path(model).name, suite.name, len(suite.tasks))
            pages.append(measure(engine, suite, how, outcome.judge))
            watcher.measured(Path(model).name, [pages[-1]["row"]])
    return {
        "model": model,
        "weights": describe(model),
        "seed": settings.seed,
        "evaluation": [{"model": model, **page["row"]} for page in pages],
        "items": {page["suite"]: page["items"] for page in pages},
    }


def _recipe(name: str | None) -> PracticeSettings | None:
    return parse_practice(find_configuration("practice", name), []) if name else None


def _suites(settings: EvaluateSettings, recipe: PracticeSettings | None, data: Path | None) -> tuple[dict[str, Any], list[Any]]:
    """Suites by name, and the training tasks whose answers the constant baseline counts."""
    if recipe is None:
        if not settings.evaluation.path:
            raise UserError("there is nothing to measure: set --evaluation.path to one or more files, or --recipe to a configuration")
        source = TaskSource(path=settings.evaluation.path, columns=settings.columns, verifier=settings.verifier)
        return load_suites(settings.evaluation, source, "", settings.seed, data, settings.system), []
    evaluation = settings.evaluation if settings.evaluation.path or settings.evaluation.n else recipe.evaluation
    suites = load_suites(evaluation, recipe.tasks, Path(settings.recipe or "").stem, settings.seed, data, recipe.system)
    train = load_tasks(recipe.tasks, split="train", n=500 if recipe.tasks.family else None, seed=settings.seed, data=data)
    return suites, train
