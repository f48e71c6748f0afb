"""What a practice run can be told. Every field is a `--key` of the command line and a line of YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.device.machine_settings import Machine
from etude.errors import UserError, at_least, check_known
from etude.evaluation.settings import Evaluation, Retention
from etude.kv_cache.settings import EngineView
from etude.learn.loss_settings import PreferenceLoss
from etude.learn.optimiser import Optimiser
from etude.learn.second_models import StepModelSettings
from etude.learn.settings import Learning
from etude.recipes.combinations import check_combinations
from etude.recipes.self_training_settings import SelfTraining
from etude.rewards.agreement import Agreement
from etude.rewards.judge import Judging
from etude.rewards.outcome import Isolation
from etude.rewards.unscored import check_max_share
from etude.rollouts.collapse import CollapseAlarm
from etude.rollouts.search.settings import BY_STEPS
from etude.rollouts.settings import Exploration
from etude.settings.configuration import flatten, parse, to_plain_values
from etude.settings.yaml_text import read_yaml
from etude.tasks.actions import PRESETS
from etude.tasks.sources import SOURCES, TaskSource

FEEDBACK = ("outcome", "random", "agreement", "judge", "form")
"""Kinds of feedback that score an attempt by itself or among its group, which may be parts of a combined one."""
OTHER_FEEDBACK = ("combined", "self_training")
SHORT = {
    "explore": "explore.search.method",
    "explore.self_made": "explore.self_made.method",
    "explore.curriculum": "explore.curriculum.method",
    "self_training": "self_training.decoding.method",
    "tasks.actions": "tasks.actions.preset",
}
"""What `--explore mcts` and the like are on the command line."""


@dataclass(frozen=True)
class WarmStart:
    """Imitation of demonstrations before practice, so that practice is about skill and not about the form of an answer."""

    n: int = 0
    """Demonstrations. Of a file or data set: the first training items with worked steps (with their bare answers, where no item has steps),
    all of them unless given; of a family or function: items of a split of their own, given always."""
    path: list[str] = field(default_factory=list)
    """Files of demonstrations, instead of training items."""
    writing: int = 0
    """So many of the demonstrations, the first ones, are shown turned round too, for explore.self_made: a problem is written."""
    steps: int = 0
    """Updates; 0 skips the warm start."""
    examples_per_step: int = 16
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=5e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        at_least("warm_start.n", self.n, 0)
        at_least("warm_start.writing", self.writing, 0)
        at_least("warm_start.steps", self.steps, 0)
        at_least("warm_start.examples_per_step", self.examples_per_step, 1)
        self.optimiser.check("warm_start.optimiser")


@dataclass(frozen=True)
class Preferences(PreferenceLoss):
    """Learning from answers that somebody compared, before practice; the reference is the model as it was before."""

    path: list[str] = field(default_factory=list)
    """Files of `prompt`, `chosen`, `rejected`, as text or chat messages."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (prompt, chosen, rejected) to the files' columns."""
    n: int | None = None
    """Pairs, the first ones; all of the files unless given."""
    steps: int = 0
    """Updates; 0 skips them."""
    pairs_per_step: int = 16
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        self.check("preferences")
        self.optimiser.check("preferences.optimiser")
        if self.n is not None:
            at_least("preferences.n", self.n, 1)
        at_least("preferences.steps", self.steps, 0)
        at_least("preferences.pairs_per_step", self.pairs_per_step, 1)
        if bool(self.path) != bool(self.steps):
            lacking = "path names files, but preferences.steps is 0" if self.path else "steps is set, but preferences.path names no file"
            raise UserError(f"preferences.{lacking}: set both, or neither")


@dataclass(frozen=True)
class PracticeSettings:
    """A practice run: a model, tasks, a warm start, exploration, feedback, learning and evaluation."""

    tasks: TaskSource
    model: str = "smollm2-135m"
    """A bundled name, a folder (of a model, or of a LoRA adapter as PEFT writes it), a .gguf file or a hub id."""
    adaptation: str | None = None
    """An adaptation (`etude adapt`: the name of one that ships, or a YAML file) that the model goes through first, with this model and
    seed, and what is said here of the machine, in the run's folder `knowledge`; none unless given."""
    adaptation_settings: dict[str, Any] = field(default_factory=dict)
    """Its settings that are to be others, by dotted name: {study.tokens: 300000}."""
    system: str | None = None
    """System message put before every prompt; none leaves it to the chat template, "" is an empty one."""
    n: int | None = None
    """Tasks to practise on: all of a file unless given, of a family as many as the steps need."""
    steps: int = 50
    """Steps of practice: each explores, scores and updates; 0 measures the warm start only."""
    budget_tokens: int | None = None
    """Practice ends with the step in which it has sampled so many tokens, though there were more steps; no bound unless given."""
    seed: int = 0
    warm_start: WarmStart = field(default_factory=WarmStart)
    preferences: Preferences = field(default_factory=Preferences)
    explore: Exploration = field(default_factory=Exploration)
    engine: EngineView = field(default_factory=EngineView)
    feedback: str = "outcome"
    """`outcome` (the tasks' verifiers), `random` (the control), `agreement` (of a task's attempts, without gold answers), `judge` (a
    model), `form` (of tasks.actions), `combined`, or `self_training` (by an answer that the model decodes from several of its attempts)."""
    feedback_weights: dict[str, float] = field(default_factory=dict)
    """`combined`: the parts with their weights, {outcome: 1.0, judge: 0.5, form: 0.1}; the score is their weighted mean."""
    feedback_optional: list[str] = field(default_factory=list)
    """`combined`: parts that are left out of the mean where they have no score; without a score of another part there is none at all."""
    judge: Judging = field(default_factory=Judging)
    agreement: Agreement = field(default_factory=Agreement)
    self_training: SelfTraining = field(default_factory=SelfTraining)
    collapse: CollapseAlarm = field(default_factory=CollapseAlarm)
    timeout_seconds: float = 5.0
    """Time a verifier has for one answer."""
    max_unscored_share: float = 0.1
    """The run stops with the reason where more of a step's attempts, or of an evaluation's answers, than this share have no score, two
    apart: a verifier that fails on so many is wrong, and what is left out is no random part. Not by agreement, which abstains; 1 never."""
    isolate_verifiers: Isolation = True
    """Whether verifiers are kept from files (but temporary ones), network, other processes and the keys in your environment: true closes
    what the kernel can, and says what it can't; `required` refuses to run where something stays open; false closes nothing, for a verifier
    that needs more."""
    judge_meanwhile: bool = True
    """Whether verifiers judge a group while others are still sampled: the same verdicts, sooner. False: one after the other, for verifiers
    that need the processor's cores for themselves to answer in time."""
    learn: Learning = field(default_factory=Learning)
    step_model: StepModelSettings = field(default_factory=StepModelSettings)
    evaluation: Evaluation = field(default_factory=Evaluation)
    retention: Retention = field(default_factory=Retention)
    checkpoint_every: int = 25
    """Steps between checkpoints; 0 keeps only the warm start's and the final model."""
    keep_checkpoints: int = 1
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        check_known("feedback", self.feedback, (*FEEDBACK, *OTHER_FEEDBACK))
        for part in self.feedback_weights:
            check_known("part of feedback_weights", part, FEEDBACK)
        at_least("seed", self.seed, 0)
        at_least("steps", self.steps, 0)
        check_max_share(self.max_unscored_share)
        if self.adaptation_settings and self.adaptation is None:
            raise UserError("adaptation_settings are set, but adaptation is not: name the adaptation, or leave them out")
        if self.budget_tokens is not None:
            at_least("budget_tokens", self.budget_tokens, 1)
        at_least("checkpoint_every", self.checkpoint_every, 0)
        at_least("keep_checkpoints", self.keep_checkpoints, 1)
        check_combinations(self)
        low, high = self.learn.clip
        object.__setattr__(self, "learn", replace(self.learn, clip_low=low, clip_high=high))  # a run's configuration names what it did

    @property
    def labelled(self) -> int:
        """How many tasks are asked about and not practised on."""
        return self.agreement.probe_n if "agreement" in self.feedback_parts else 0

    @property
    def feedback_parts(self) -> tuple[str, ...]:
        """The kinds of feedback that make up the score."""
        return tuple(self.feedback_weights) if self.feedback == "combined" else (self.feedback,)


def practice_defaults() -> dict[str, Any]:
    """What every setting is where nobody says otherwise, by dotted name; without the source of tasks, which has no default."""
    values = flatten(to_plain_values(PracticeSettings(TaskSource(family="any"))))
    return {name: value for name, value in values.items() if name != "tasks.family"}


def parse_practice(path: Path, overrides: Sequence[str]) -> PracticeSettings:
    """Settings from a YAML file and `--key value` overrides, among which another source of tasks replaces the file's, and tagged actions
    are the steps of a search unless it says what else is.
    """
    return parse(PracticeSettings, path, overrides, adjust=_adjusted, short=SHORT)


def _adjusted(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    kept = _replace_source(values, given)
    return kept | _steps_of_actions({**kept, **given})


def _steps_of_actions(told: Mapping[str, Any]) -> dict[str, Any]:
    """Steps that end where an action closes, for a search or step model that has steps; `told` is by dotted name, options as text."""
    has_steps = told.get("explore.search.method") in BY_STEPS or str(told.get("step_model.on")).lower() == "true"
    if not has_steps or any(name.startswith("explore.search.steps.") for name in told):
        return {}
    tags, longest = told.get("tasks.actions.tags") or {}, told.get("explore.max_new_tokens", Exploration.max_new_tokens)
    tags = read_yaml(tags) if isinstance(tags, str) else tags
    if not tags and (preset := told.get("tasks.actions.preset")) in PRESETS:
        tags = PRESETS[preset].limits
    if not isinstance(tags, Mapping) or not tags or not str(longest).isdigit():
        return {}  # without actions, or with values that are told of when they are read
    steps = {"end": "tag", "tags": list(tags), "max_tokens": int(longest)}
    return {f"explore.search.steps.{name}": value for name, value in steps.items()}


def _replace_source(values: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """The file's values without those that belong to tasks which an override replaces: the source's settings, and sizes that fit it."""
    named = [source for source in SOURCES if f"tasks.{source}" in given]
    before = next((source for source in SOURCES if values.get(f"tasks.{source}")), None)
    is_replaced = bool(named) and (named[0] != before or (named[0] == "family" and given["tasks.family"] != values["tasks.family"]))
    if not is_replaced:
        return dict(values)
    sizes = ("n", "evaluation.n", "warm_start.path", "explore.max_new_tokens") + (
        ("warm_start.n",) if named[0] in ("path", "dataset") else ()
    )
    stays = ("tasks.actions.",)  # how an answer is asked for, whatever the question
    return {
        name: value for name, value in values.items() if name.startswith(stays) or (not name.startswith("tasks.") and name not in sizes)
    }
