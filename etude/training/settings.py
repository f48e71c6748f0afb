"""Settings of a practice run. Every field is a `--key` of the command line and a line of YAML."""

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
    """Warm start: supervised fine-tuning on demonstrations before practice, which teaches the form of an answer."""

    n: int = 0
    """Demonstrations; 0 = all. Of files and data sets: the first training items with worked steps, or with bare answers if no item has
    steps. Of a family or function: items of a separate split; 0 is not allowed."""
    path: list[str] = field(default_factory=list)
    """Files of demonstrations, instead of training items."""
    writing: int = 0
    """How many of the demonstrations, the first ones, are also shown reversed: writing the problem (callbacks.synthetic_tasks); 0 = none.
    """
    steps: int = 0
    """Optimizer updates; 0 = no warm start."""
    examples_per_step: int = 16
    """Demonstrations per update."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(learning_rate=5e-5, warmup_steps=3))

    def __post_init__(self) -> None:
        at_least("warm_start.n", self.n, 0)
        at_least("warm_start.writing", self.writing, 0)
        at_least("warm_start.steps", self.steps, 0)
        at_least("warm_start.examples_per_step", self.examples_per_step, 1)
        self.optimizer.check("warm_start.optimizer")


@dataclass(frozen=True)
class Preferences(PreferenceLoss):
    """Preference optimization on given pairs before practice; the reference is the model before it."""

    path: list[str] = field(default_factory=list)
    """Files with `prompt`, `chosen` and `rejected`, as text or chat messages."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our names (prompt, chosen, rejected) to the files' columns."""
    n: int | None = None
    """Number of pairs, the first ones; null = all."""
    steps: int = 0
    """Optimizer updates; 0 = off."""
    pairs_per_step: int = 16
    """Pairs per update."""
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
    """Settings of a practice run: model, tasks, warm start, rollouts, rewards, learning and evaluation."""

    tasks: TaskSource
    model: str = "smollm2-135m"
    """Model to train: a bundled name, a folder (of a model or a PEFT LoRA adapter), a .gguf file or a hub id."""
    adaptation: str | None = None
    """Adaptation to run first (`etude adapt`: a shipped name or a YAML file), with this run's model, seed and machine, in the run's
    subfolder `knowledge`; null = none."""
    adaptation_settings: dict[str, Any] = field(default_factory=dict)
    """Overrides of the adaptation's settings, by dotted name: {study.tokens: 300000}."""
    system: str | None = None
    """System message before every prompt; null = what the chat template does, "" = an empty message."""
    n: int | None = None
    """Number of training tasks; null = all of files and data sets, as many as the steps need of a family or function."""
    steps: int = 50
    """Practice steps: each samples, scores and updates; 0 = measure only the warm start."""
    seed: int = 0
    warm_start: WarmStart = field(default_factory=WarmStart)
    preferences: Preferences = field(default_factory=Preferences)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    kv_cache: KVCacheSettings = field(default_factory=KVCacheSettings)
    reward: str = "verifier"
    """`verifier` (the tasks' verifiers), `random` (control), `majority_vote` (of a task's attempts, without gold answers), `judge` (LLM as
    a judge), `format` (of tasks.actions), `combined`, or `self_training` (by an answer that the model decodes from several of its
    attempts)."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """`combined`: weight of each part, {verifier: 1.0, judge: 0.5, format: 0.1}; the reward is the weighted mean."""
    reward_optional: list[str] = field(default_factory=list)
    """`combined`: parts that are left out of the mean if they have no score; if another part has none, the attempt has no reward."""
    judge: Judging = field(default_factory=Judging)
    majority_vote: MajorityVoteSettings = field(default_factory=MajorityVoteSettings)
    self_training: SelfTraining = field(default_factory=SelfTraining)
    timeout_seconds: float = 5.0
    """Time limit of a verifier for one answer, in seconds."""
    max_unscored_share: float = 0.1
    """Stop the run if more than this share of a step's attempts or an evaluation's answers, and more than two, have no score; 1 = never.
    Not for majority_vote, which abstains."""
    isolate_verifiers: Isolation = True
    """Sandbox verifiers: they write only temporary files, and reach no network, other processes or keys in your environment. true = as far
    as the kernel can, reporting what it can't; `required` = refuse to run if anything stays open; false = off."""
    async_verifiers: bool = True
    """Verify groups while others are still sampled: the same rewards, sooner. false = one after the other, for verifiers that need all CPU
    cores to answer in time."""
    learn: Learning = field(default_factory=Learning)
    evaluation: Evaluation = field(default_factory=Evaluation)
    retention: Retention = field(default_factory=Retention)
    save_steps: int = 25
    """Steps between checkpoints; 0 = keep only the warm start's and the final model."""
    save_total_limit: int = 1
    machine: Machine = field(default_factory=Machine)
    callbacks: dict[str, Any] = field(
        default_factory=lambda: {"collapse": CollapseSettings()},
        metadata={"sections": Sections(CALLBACKS, settings_class, "callback_classes")},
    )
    """Optional features by name, each with its settings."""
    callback_classes: dict[str, str] = field(default_factory=dict)
    """Your own callbacks: name → FILE.py:CLASS or package.module:CLASS."""

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
        object.__setattr__(self, "learn", replace(self.learn, clip_low=low, clip_high=high))  # the saved configuration has the used values

    @property
    def reward_parts(self) -> tuple[str, ...]:
        """The rewards that make up the score."""
        return tuple(self.reward_weights) if self.reward == "combined" else (self.reward,)
