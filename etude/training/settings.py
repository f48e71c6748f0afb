"""What a practice run can be told. Every field is a `--key` of the command line and a line of YAML."""

from dataclasses import dataclass, field, replace
from typing import Any

from etude.callbacks import CALLBACKS, settings_class
from etude.device.machine_settings import Machine
from etude.errors import UserError, at_least, check_known
from etude.evaluation.settings import Evaluation, Retention
from etude.kv_cache.settings import KVCacheSettings
from etude.learn.loss_settings import PreferenceLoss
from etude.learn.optimizer import OptimizerSettings
from etude.learn.settings import Learning
from etude.rewards.judge import Judging
from etude.rewards.majority_vote import MajorityVoteSettings
from etude.rewards.unscored import check_max_share
from etude.rewards.verifier_reward import Isolation
from etude.rollouts.collapse import CollapseSettings
from etude.rollouts.settings import RolloutSettings
from etude.settings.sections import Sections
from etude.tasks.sources import TaskSource
from etude.training.self_training_settings import SelfTraining

REWARDS = ("verifier", "random", "majority_vote", "judge", "format")
"""Kinds of feedback that score an attempt by itself or among its group, which may be parts of a combined one."""
OTHER_REWARDS = ("combined", "self_training")


@dataclass(frozen=True)
class WarmStart:
    """Imitation of demonstrations before practice, so that practice is about skill and not about the form of an answer."""

    n: int = 0
    """Demonstrations. Of a file or data set: the first training items with worked steps (with their bare answers, where no item has steps),
    all of them unless given; of a family or function: items of a split of their own, given always."""
    path: list[str] = field(default_factory=list)
    """Files of demonstrations, instead of training items."""
    writing: int = 0
    """So many of the demonstrations, the first ones, are shown turned round too, for callbacks.synthetic_tasks: a problem is written."""
    steps: int = 0
    """Updates; 0 skips the warm start."""
    examples_per_step: int = 16
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=5e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        at_least("warm_start.n", self.n, 0)
        at_least("warm_start.writing", self.writing, 0)
        at_least("warm_start.steps", self.steps, 0)
        at_least("warm_start.examples_per_step", self.examples_per_step, 1)
        self.optimizer.check("warm_start.optimizer")


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
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=1e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        self.check("preferences")
        self.optimizer.check("preferences.optimizer")
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
    seed: int = 0
    warm_start: WarmStart = field(default_factory=WarmStart)
    preferences: Preferences = field(default_factory=Preferences)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    reward: str = "verifier"
    """`verifier` (the tasks' verifiers), `random` (the control), `majority_vote` (of a task's attempts, without gold answers), `judge` (a
    model), `format` (of tasks.actions), `combined`, or `self_training` (by an answer that the model decodes from several of its
    attempts)."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """`combined`: the parts with their weights, {verifier: 1.0, judge: 0.5, format: 0.1}; the score is their weighted mean."""
    reward_optional: list[str] = field(default_factory=list)
    """`combined`: parts that are left out of the mean where they have no score; without a score of another part there is none at all."""
    judge: Judging = field(default_factory=Judging)
    majority_vote: MajorityVoteSettings = field(default_factory=MajorityVoteSettings)
    self_training: SelfTraining = field(default_factory=SelfTraining)
    timeout_seconds: float = 5.0
    """Time a verifier has for one answer."""
    max_unscored_share: float = 0.1
    """The run stops with the reason where more of a step's attempts, or of an evaluation's answers, than this share have no score, two
    apart: a verifier that fails on so many is wrong, and what is left out is no random part. Not by majority_vote, which abstains; 1
    never."""
    isolate_verifiers: Isolation = True
    """Whether verifiers are kept from files (but temporary ones), network, other processes and the keys in your environment: true closes
    what the kernel can, and says what it can't; `required` refuses to run where something stays open; false closes nothing, for a verifier
    that needs more."""
    async_verifiers: bool = True
    """Whether verifiers judge a group while others are still sampled: the same rewards, sooner. False: one after the other, for verifiers
    that need the processor's cores for themselves to answer in time."""
    learn: Learning = field(default_factory=Learning)
    evaluation: Evaluation = field(default_factory=Evaluation)
    retention: Retention = field(default_factory=Retention)
    save_steps: int = 25
    """Steps between checkpoints; 0 keeps only the warm start's and the final model."""
    save_total_limit: int = 1
    machine: Machine = field(default_factory=Machine)
    callbacks: dict[str, Any] = field(
        default_factory=lambda: {"collapse": CollapseSettings()},
        metadata={"sections": Sections(CALLBACKS, settings_class, "callback_classes")},
    )
    """Optional features by name, each with its settings."""
    callback_classes: dict[str, str] = field(default_factory=dict)
    """Users' own callbacks: name → FILE.py:CLASS or package.module:CLASS."""

    def __post_init__(self) -> None:
        check_known("reward", self.reward, (*REWARDS, *OTHER_REWARDS))
        for part in self.reward_weights:
            check_known("part of reward_weights", part, REWARDS)
        at_least("seed", self.seed, 0)
        at_least("steps", self.steps, 0)
        check_max_share(self.max_unscored_share)
        if self.adaptation_settings and self.adaptation is None:
            raise UserError("adaptation_settings are set, but adaptation is not: name the adaptation, or leave them out")
        at_least("save_steps", self.save_steps, 0)
        at_least("save_total_limit", self.save_total_limit, 1)
        low, high = self.learn.clip
        object.__setattr__(self, "learn", replace(self.learn, clip_low=low, clip_high=high))  # a run's configuration names what it did

    @property
    def reward_parts(self) -> tuple[str, ...]:
        """The kinds of feedback that make up the score."""
        return tuple(self.reward_weights) if self.reward == "combined" else (self.reward,)
