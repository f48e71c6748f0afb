"""What a practice run can be told. Every field is a `--key` of the command line and a line of YAML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from etude.adapters import LoRA
from etude.configuration import dotted, parse, resolved
from etude.engine.sampling import Sampling
from etude.errors import UserError, unknown
from etude.explore.hints import HINT
from etude.explore.refinement import Refinement
from etude.explore.search.settings import BY_STEPS, REFINE, Search
from etude.explore.stopping import StopWhen
from etude.feedback.judge import Judging
from etude.learn.credit import CREDIT
from etude.learn.implicit_reward import ImplicitRewardSettings
from etude.learn.learner import Optimiser
from etude.learn.lessons import LESSONS
from etude.learn.losses import POLICY_LOSSES, PreferenceLoss
from etude.learn.pairs import PAIRS
from etude.learn.step_credit import STEP_CREDIT
from etude.learn.step_model import StepModelSettings
from etude.recipes.combinations import check_combinations
from etude.tasks.actions import PRESETS
from etude.tasks.sources import SOURCES, TaskSource

FEEDBACK = ("outcome", "random", "judge", "form")
"""Kinds of feedback, and the parts of a combined one."""
METHODS = (*LESSONS, "preference")
SHORT = {"explore": "explore.search.method", "tasks.actions": "tasks.actions.preset"}
"""What `--explore mcts` and the like are on the command line."""


def _known(kind: str, name: str, table: Iterable[str]) -> None:
    if name not in table:
        raise unknown(kind, name, table)


def at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")


@dataclass(frozen=True)
class Machine:
    """Where and how numbers are computed."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products; weights and optimizer stay float32. `auto` asks a quick probe whether bfloat16 is faster here."""
    decode_batch_tokens: int = 32768
    """Cache positions decoded together."""
    update_batch_tokens: int = 2048
    """Positions in a micro-batch of an update."""


@dataclass(frozen=True)
class WarmStart:
    """Imitation of demonstrations before practice, so that practice is about skill and not about the form of an answer."""

    n: int = 0
    """Demonstrations. Of a file or data set: the first training items with worked steps (with their bare answers, where no item has steps),
    all of them unless given; of a family or function: items of a split of their own, given always."""
    path: list[str] = field(default_factory=list)
    """Files of demonstrations, instead of training items."""
    steps: int = 0
    """Updates; 0 skips the warm start."""
    examples_per_step: int = 16
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=5e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        at_least("warm_start.n", self.n, 0)
        at_least("warm_start.steps", self.steps, 0)
        at_least("warm_start.examples_per_step", self.examples_per_step, 1)
        self.optimiser.check("warm_start.optimiser")


@dataclass(frozen=True)
class Exploration:
    """The attempts of a step."""

    tasks_per_step: int = 16
    num_samples: int = 8
    """Attempts at each task: the group."""
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    search: Search = field(default_factory=Search)
    refine: Refinement = field(default_factory=Refinement)
    """Of explore.search.method refine: an attempt, feedback in words, a revised attempt, for a number of turns."""
    reuse: bool = False
    """Whether a task's attempts of the last epoch are drafts of the next ones, which have the same random numbers: the present policy's own
    attempts, sooner, but visits of a task are no longer independent (`etude/explore/reuse.py`)."""
    rationalise: bool = False
    """Whether a task at which no attempt was right gets as many attempts again with its answer shown, from which `imitation` and
    `preference` learn as if it had not been shown (STaR)."""
    hint: str = HINT
    """How it is shown."""
    stop_when_decided: StopWhen = "never"
    """Whether a group gets the second half of its attempts only where the first half leaves doubt: not if all are `right`, or `wrong`, or
    `either`. Fewer attempts, but tasks that are nearly learnt (or hopeless) count less (`etude/explore/stopping.py`)."""

    @property
    def is_search(self) -> bool:
        """Whether attempts come from a tree."""
        return self.search.method not in ("samples", REFINE)

    @property
    def turns(self) -> int:
        """Answers in an attempt at most."""
        return self.refine.turns if self.search.method == REFINE else 1

    def __post_init__(self) -> None:
        at_least("explore.tasks_per_step", self.tasks_per_step, 1)
        at_least("explore.num_samples", self.num_samples, 2)
        at_least("explore.max_new_tokens", self.max_new_tokens, 1)
        if "{answer}" not in self.hint:
            raise UserError(f"explore.hint must say where the answer stands, with {{answer}}, got {self.hint!r}")
        if self.reuse and self.rationalise:
            raise UserError(
                "explore.reuse takes over attempts, which those that saw the answer have none of: set it or rationalise to false"
            )
        if self.search.method != "samples" and (self.reuse or self.rationalise or self.stop_when_decided != "never"):
            name = "reuse" if self.reuse else "rationalise" if self.rationalise else "stop_when_decided"
            raise UserError(
                f"explore.{name} is for independent attempts, and explore.search.method {self.search.method} makes others: leave it out, "
                "or set the method to samples"
            )
        if self.stop_when_decided != "never" and self.num_samples < 4:
            raise UserError(
                f"explore.stop_when_decided {self.stop_when_decided} judges by the first half of explore.num_samples {self.num_samples}, "
                "and one attempt alone says nothing: set num_samples to 4 or more, or stop_when_decided to never"
            )
        for name, value, least in (("temperature", self.sampling.temperature, 0.0), ("top_k", self.sampling.top_k, 1)):
            if value == least:
                raise UserError(f"explore.sampling.{name} {value} makes all attempts at a task equal, so that there is nothing to learn")
        if (self.sampling.top_p, self.sampling.top_k, self.sampling.min_p) != (1.0, 0, 0.0):
            raise UserError(
                "explore.sampling.top_p, top_k and min_p cut tokens off, which biases ratios: leave them out, vary the temperature"
            )


@dataclass(frozen=True)
class Preference(PreferenceLoss):
    """Learning from pairs of own attempts."""

    pairs: str = "outcome"
    """`outcome` (the best with the worst of a group), `length_matched` (those of them that differ least in length) or, of searches, `step`
    (the best with the worst step behind one beginning)."""
    pairs_per_task: int = 1
    """Pairs of a group at most."""
    refresh_every: int = 0
    """Steps after which the reference becomes the model as it is then; 0: it stays the model that practice began with."""

    def __post_init__(self) -> None:
        self.check("learn.preference")
        _known("learn.preference.pairs", self.pairs, PAIRS)
        at_least("learn.preference.pairs_per_task", self.pairs_per_task, 1)
        at_least("learn.preference.refresh_every", self.refresh_every, 0)


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
class Learning:
    """What is made of judged attempts."""

    method: str = "credit"
    """`credit` (policy gradient), `imitation` (of own right attempts) or `preference` (of better over worse ones)."""
    credit: str = "centred"
    """`centred` (Dr. GRPO), `standardised` (GRPO), `leave_one_out` (RLOO), `batch`; of searches also by step: `difference` (VinePPO; of
    independent attempts too, by the values of a step model), `tree` (TreeRL)."""
    outcome_coefficient: float = 0.0
    """Of credit by step: weight of the outcome's own credit (`centred`) that is added to it."""
    step_values: Literal["soft", "hard"] = "soft"
    """Of searches: what a beginning is worth: the mean score of what went on from there, or 1 where any of it was right (Math-Shepherd)."""
    loss: str = "clipped"
    """`clipped` (PPO, DAPO), `sequence` (GSPO), `capped` (CISPO)."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    aggregation: Literal["token", "sequence", "constant"] = "constant"
    """How tokens are averaged; `constant` divides by explore.max_new_tokens (Dr. GRPO). Turns of a revised attempt add up."""
    epochs: int = 1
    """Passes over a step's attempts; ratios are taken to the behaviour log-probs recorded while sampling."""
    updates_per_epoch: int = 1
    """Parts that an epoch is cut into, by groups; one optimizer step each."""
    turn_discount: float = 1.0
    """Of revised attempts, how much of what later turns gain a turn is credited with: at 1 all, at 0 its own improvement alone."""
    anchor: float = 0.0
    """Coefficient of the divergence from the model that practice began with; 0 is off. `credit` only."""
    preference: Preference = field(default_factory=Preference)
    implicit_reward: ImplicitRewardSettings = field(default_factory=ImplicitRewardSettings)
    keep_all_right: bool = False
    """Whether `imitation` learns from groups too whose attempts are all right."""
    restart: bool = False
    """Whether every step of `imitation` learns from the model on that practice began with, and from all right attempts (STaR, ReST-EM):
    steps should then be large."""
    lora: LoRA = field(default_factory=LoRA)
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(learning_rate=1e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        _known("learn.method", self.method, METHODS)
        _known("learn.credit", self.credit, [*CREDIT, *STEP_CREDIT])
        _known("learn.loss", self.loss, POLICY_LOSSES)
        if self.outcome_coefficient < 0:
            raise UserError(f"learn.outcome_coefficient must be 0 (off) or more, got {self.outcome_coefficient}")
        at_least("learn.epochs", self.epochs, 1)
        at_least("learn.updates_per_epoch", self.updates_per_epoch, 1)
        self.optimiser.check("learn.optimiser")
        if not 0 <= self.clip_low <= 1 or self.clip_high < 0:
            raise UserError(f"learn.clip_low must be in [0, 1] and learn.clip_high 0 or more, got {self.clip_low} and {self.clip_high}")
        if not 0 <= self.turn_discount <= 1:
            raise UserError(f"learn.turn_discount must be in [0, 1], got {self.turn_discount}")
        if self.anchor < 0:
            raise UserError(f"learn.anchor must be 0 (off) or more, got {self.anchor}")
        for name in ("restart", "keep_all_right"):
            if getattr(self, name) and self.method != "imitation":
                raise UserError(
                    f"learn.{name} is for learn.method imitation, not {self.method}: set it to false, or the method to imitation"
                )
        if self.method == "preference" and self.preference.refresh_every and not self.preference.needs_reference:
            raise UserError(
                f"learn.preference.refresh_every is {self.preference.refresh_every}, but {self.preference.loss} has no reference: set it "
                "to 0, or the loss to dpo, ipo or kto"
            )
        if self.anchor and self.method != "credit":
            raise UserError(
                f"learn.anchor is {self.anchor}, but has no effect on learn.method {self.method}: set it to 0, or method to credit"
            )


@dataclass(frozen=True)
class Evaluation:
    """What a model is measured on."""

    path: list[str] = field(default_factory=list)
    """Files, one suite each, named by the stem."""
    own: bool = True
    """Whether a source that has splits (a family, a function, a data set) is measured on its own evaluation split, too."""
    split: str = "test"
    """Name of that split."""
    n: int | None = None
    """Tasks of each suite; all tasks of a file or data set unless given, 1,000 of a family or function."""
    pass_n: int = 200
    """Tasks that are sampled for pass@k."""
    num_samples: int = 8
    """Samples for each of these: the k."""
    max_new_tokens: int | None = None
    """Longest answer; explore.max_new_tokens unless given."""

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("evaluation.n", self.n, 1)
        if self.max_new_tokens is not None:
            at_least("evaluation.max_new_tokens", self.max_new_tokens, 1)
        at_least("evaluation.pass_n", self.pass_n, 0)
        at_least("evaluation.num_samples", self.num_samples, 0)


@dataclass(frozen=True)
class Retention:
    """What the model knew before, measured beside the suites by likelihood: a text and multiple-choice questions.

    Without files of yours they are those that ship: a page of common knowledge and 80 questions.
    """

    probe: bool = True
    text: list[str] = field(default_factory=list)
    """Text files."""
    choices: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, choices, answer) to the files' columns."""
    n: int | None = None
    """Questions of each file; all unless given."""
    text_tokens: int = 8192
    """Tokens of the text at most."""
    window_tokens: int = 64
    """Length of the pieces that the text is read in, each without the ones before."""

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("retention.n", self.n, 1)
        at_least("retention.text_tokens", self.text_tokens, 2)
        at_least("retention.window_tokens", self.window_tokens, 3)


@dataclass(frozen=True)
class PracticeSettings:
    """A practice run: a model, tasks, a warm start, exploration, feedback, learning and evaluation."""

    tasks: TaskSource
    model: str = "smollm2-135m"
    """A bundled name, a folder, a .gguf file or a hub id."""
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
    feedback: str = "outcome"
    """`outcome` (the tasks' verifiers), `random` (the control), `judge` (a model), `form` (of tasks.actions), or `combined`."""
    feedback_weights: dict[str, float] = field(default_factory=dict)
    """`combined`: the parts with their weights, {outcome: 1.0, judge: 0.5, form: 0.1}; the score is their weighted mean."""
    feedback_optional: list[str] = field(default_factory=list)
    """`combined`: parts that are left out of the mean where they have no score; without a score of another part there is none at all."""
    judge: Judging = field(default_factory=Judging)
    timeout_seconds: float = 5.0
    """Time a verifier has for one answer."""
    isolate_verifiers: bool = True
    """Whether verifiers are kept from files (but temporary ones), network and other processes, where the kernel can; false for one that
    needs them."""
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
        _known("feedback", self.feedback, (*FEEDBACK, "combined"))
        for part in self.feedback_weights:
            _known("part of feedback_weights", part, FEEDBACK)
        at_least("steps", self.steps, 0)
        if self.budget_tokens is not None:
            at_least("budget_tokens", self.budget_tokens, 1)
        at_least("checkpoint_every", self.checkpoint_every, 0)
        at_least("keep_checkpoints", self.keep_checkpoints, 1)
        check_combinations(self)

    @property
    def feedback_parts(self) -> tuple[str, ...]:
        """The kinds of feedback that make up the score."""
        return tuple(self.feedback_weights) if self.feedback == "combined" else (self.feedback,)


def practice_defaults() -> dict[str, Any]:
    """What every setting is where nobody says otherwise, by dotted name; without the source of tasks, which has no default."""
    values = dotted(resolved(PracticeSettings(TaskSource(family="any"))))
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
    tags = yaml.safe_load(tags) if isinstance(tags, str) else tags
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
