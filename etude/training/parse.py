"""Read the settings of a practice run from YAML and `--key value` overrides, and check their combinations."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from etude.callbacks import CALLBACKS, TAKEN, callback_class, settings_class
from etude.errors import UserError
from etude.rollouts.search.settings import BY_STEPS
from etude.rollouts.settings import RolloutSettings
from etude.settings.configuration import changes, flatten, parse, plain, recipe_values, shipped_configurations, to_plain_values
from etude.settings.yaml_text import read_yaml
from etude.tasks.actions import PRESETS
from etude.tasks.sources import SOURCES, TaskSource
from etude.training.callback import Callback, check_callbacks
from etude.training.combinations import check_combinations
from etude.training.settings import PracticeSettings

SHORT = {
    "search": "rollout.search.method",
    "synthetic_tasks": "callbacks.synthetic_tasks.method",
    "curriculum": "callbacks.curriculum.method",
    "self_training": "self_training.decoding.method",
    "tasks.actions": "tasks.actions.preset",
    "learning_rate": "learn.optimizer.learning_rate",
    "num_samples": "rollout.num_samples",
    "tasks_per_step": "rollout.tasks_per_step",
    "max_new_tokens": "rollout.max_new_tokens",
    "temperature": "rollout.sampling.temperature",
}
"""Short options of the command line, such as `--search mcts`."""
COMMON = (
    *("model", "tasks.path", "tasks.family", "tasks.verifier", "evaluation.path", "evaluation.n", "system", "n", "steps", "seed"),
    *("rollout.tasks_per_step", "rollout.num_samples", "rollout.max_new_tokens", "rollout.sampling.temperature", "rollout.search.method"),
    *("reward", "learn.method", "learn.advantage", "learn.loss", "learn.optimizer.learning_rate", "learn.lora.rank"),
    *("warm_start.path", "warm_start.steps", "callbacks.kl_penalty.kl_coef", "callbacks.gate", "kv_cache.policy", "kv_cache.keep_ratio"),
    *("save_steps", "machine.device"),
)
"""The settings that help shows first."""


def callbacks_of(settings: PracticeSettings) -> list[Callback]:
    """Create the callbacks of the settings, in the order of their calls."""
    found = []
    for name, own in settings.callbacks.items():
        kind = callback_class(name, settings.callback_classes.get(name))
        if not issubclass(kind, Callback):
            raise UserError(f"callbacks.{name}: {settings.callback_classes[name]} must be a class that extends etude.Callback")
        found.append(kind(own))
    return found


def check_settings(settings: PracticeSettings) -> None:
    """Raise UserError for incompatible settings."""
    check_combinations(settings)
    check_callbacks(callbacks_of(settings), flatten(to_plain_values(settings)))


def check_objects(callbacks: Sequence[Callback], settings: PracticeSettings) -> None:
    """Raise UserError for callback objects that have no name of their own or are incompatible with the settings."""
    taken = {*settings.callbacks, *TAKEN}
    for each in callbacks:
        kind = type(each).__name__
        if not isinstance(each, Callback):
            raise UserError(f"callbacks: expected objects of classes that extend etude.Callback, got {each if kind == 'type' else kind}")
        if not getattr(each, "name", ""):
            raise UserError(f"callbacks: {kind} has no name: give the class one, name = {kind.lower()!r}")
        if each.name in taken:
            raise UserError(f"callbacks: {kind} has the name {each.name}, which is taken: give the class another one")
        taken.add(each.name)
    check_callbacks(callbacks, flatten(to_plain_values(settings)))


def practice_defaults() -> dict[str, Any]:
    """Return the defaults of all settings by dotted name, callbacks included; the source of tasks has none."""
    values = flatten(to_plain_values(PracticeSettings(TaskSource(family="any"))))
    found = {name: value for name, value in values.items() if name != "tasks.family" and not name.startswith("callbacks.")}
    for name in CALLBACKS:
        for each in fields(settings_class(name)):
            default = each.default_factory() if each.default_factory is not MISSING else each.default
            if default is not MISSING:
                found |= flatten({f"callbacks.{name}.{each.name}": plain(default)})
    return found


def parse_practice(path: Path, overrides: Sequence[str]) -> PracticeSettings:
    """Read settings from a YAML file and `--key value` overrides. Another source of tasks replaces the file's; tagged actions become the
    steps of a search unless steps are set.
    """
    settings = parse(PracticeSettings, path, overrides, adjust=_adjusted, short=SHORT)
    check_settings(settings)
    return settings


def changed_settings(recipe: str, settings: PracticeSettings) -> dict[str, str]:
    """Return the values that differ from those of a recipe that ships, each with the recipe's own: `{"steps": "3 (40)"}`.

    {} for a recipe that does not ship, and for one that needs more settings, such as tasks.
    """
    path = shipped_configurations("practice").get(recipe)
    before = {} if path is None else recipe_values(path, parse_practice)
    return changes(before, to_plain_values(settings)) if before else {}


def _adjusted(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    kept = _replace_source(values, given)
    return kept | _steps_of_actions({**kept, **given})


def _steps_of_actions(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return steps that end where an action closes, for a search or step model that has steps; `told` is by dotted name, options as
    text.
    """
    has_steps = told.get("rollout.search.method") in BY_STEPS or any(name.startswith("callbacks.step_model") for name in told)
    if not has_steps or any(name.startswith("rollout.search.steps.") for name in told):
        return {}
    tags, longest = told.get("tasks.actions.tags") or {}, told.get("rollout.max_new_tokens", RolloutSettings.max_new_tokens)
    tags = read_yaml(tags) if isinstance(tags, str) else tags
    if not tags and (preset := told.get("tasks.actions.preset")) in PRESETS:
        tags = PRESETS[preset].limits
    if not isinstance(tags, Mapping) or not tags or not str(longest).isdigit():
        return {}  # no actions, or values that parsing will refuse
    steps = {"end": "tag", "tags": list(tags), "max_tokens": int(longest)}
    return {f"rollout.search.steps.{name}": value for name, value in steps.items()}


def _replace_source(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """Drop the file's values that belong to tasks which an override replaces: the source's settings, and sizes that fit it."""
    named = [source for source in SOURCES if f"tasks.{source}" in given]
    before = next((source for source in SOURCES if values.get(f"tasks.{source}")), None)
    is_replaced = bool(named) and (named[0] != before or (named[0] == "family" and given["tasks.family"] != values["tasks.family"]))
    if not is_replaced:
        return dict(values)
    sizes = ["n", "evaluation.n", "evaluation.parameters", "warm_start.path", "rollout.max_new_tokens"]
    sizes += ["warm_start.n"] if named[0] in ("path", "dataset") else []
    stays = ("tasks.actions.",)  # the form of an answer does not depend on the questions
    return {
        name: value for name, value in values.items() if name.startswith(stays) or (not name.startswith("tasks.") and name not in sizes)
    }
