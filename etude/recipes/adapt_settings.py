"""Settings of an adaptation. Every field is a `--key` of the command line and a line of YAML."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from etude.device.machine_settings import Machine
from etude.errors import UserError, at_least, check_known
from etude.knowledge.documents import Corpus
from etude.knowledge.grading import Grader
from etude.knowledge.mixture import StudyStage
from etude.knowledge.selection import Selection
from etude.knowledge.writers.settings import PassageWriter
from etude.learn.optimizer import OptimizerSettings
from etude.models.lora_settings import LoRA
from etude.settings.configuration import flatten, parse, to_plain_values
from etude.suites.domain_settings import DomainSuite
from etude.tasks.sources import SOURCES, TaskSource

TEXT, TASKS, REPLAY = "text", "tasks", "replay"
"""The sources of a stage: domain text, solved tasks, general text."""
ORDERS = ("knowledge_then_tasks", "mixed", "tasks_then_knowledge", "tasks_only", "knowledge_only")

TASK_FORMATS = ("answers", "passages")


@dataclass(frozen=True)
class SolvedTasks(TaskSource):
    """Solved tasks to train on; optional, and of up to two kinds."""

    open_where: dict[str, str] = field(default_factory=dict)
    """Column values that select the open tasks of the same files, such as {type: open}, besides those of `where`; empty = none."""

    def kinds(self) -> list[TaskSource]:
        """Return a source for each kind: these tasks, and the open tasks, without choices."""
        own = {each.name: getattr(self, each.name) for each in fields(TaskSource)}
        columns = {ours: theirs for ours, theirs in self.columns.items() if ours != "choices"}
        open_ones = [TaskSource(**own | {"where": self.open_where, "columns": columns})] if self.open_where else []
        return [TaskSource(**own), *open_ones] if self.is_given else []

    @property
    def is_given(self) -> bool:
        return any(getattr(self, name) for name in SOURCES)

    def __post_init__(self) -> None:
        if self.is_given:
            super().__post_init__()
        if self.open_where and not self.where:
            raise UserError("tasks.open_where needs tasks.where, which says which of the others have choices: set both, or neither")
        if self.family:
            raise UserError("tasks.family has no end, and no answers but its own: name tasks with path, dataset or function")


@dataclass(frozen=True)
class Study:
    """Amounts and order of training text and tasks."""

    order: str = "knowledge_then_tasks"
    """Order of the stages: knowledge_then_tasks, mixed, tasks_then_knowledge, tasks_only or knowledge_only."""
    tokens: int = 1_000_000
    """Training tokens in total, for any order."""
    tasks_share: float = 0.1
    """Share of solved tasks in all tokens, in [0, 1]."""
    task_format: str = "answers"
    """Form of solved tasks: `answers` (question, then answer), or `passages` that join several of them with sentences of the text."""
    mixing: float = 0.5
    """Share of tasks in the tokens of the task stage, in [0, 1]; the rest is domain text."""
    replay_share: float = 0.1
    """Share of general text in the tokens of every stage, in [0, 1)."""
    tokens_per_step: int = 4096
    """Tokens per optimizer update."""
    window_tokens: int = 256
    """Length of the training examples of text, in tokens."""
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(5e-5, warmup_steps=10, lr_scheduler="linear"))
    """Optimizer of the first stage; a falling rate falls to 0 over each stage."""
    later_stage_lr_factor: float = 0.5
    """Factor of the learning rate in later stages, above 0."""

    def __post_init__(self) -> None:
        check_known("study.order", self.order, ORDERS)
        check_known("study.task_format", self.task_format, TASK_FORMATS)
        for name in ("tokens", "tokens_per_step"):
            at_least(f"study.{name}", getattr(self, name), 1)
        at_least("study.window_tokens", self.window_tokens, 2)
        for name in ("tasks_share", "mixing", "replay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"study.{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.later_stage_lr_factor <= 0:
            raise UserError(f"study.later_stage_lr_factor must be above 0, got {self.later_stage_lr_factor}")
        if self.optimizer.decay_steps is not None:
            raise UserError("study.optimizer.decay_steps has no effect, since a falling rate falls over each stage: leave it out")
        if self.replay_share == 1:
            raise UserError("study.replay_share 1 leaves no token for the domain: lower it")
        if self._has_two and not 0 < self.tasks_share <= self.mixing * (1 - self.replay_share):
            most = self.mixing * (1 - self.replay_share)
            raise UserError(
                f"study.tasks_share {self.tasks_share} must be above 0 and at most mixing x (1 - replay_share) = {most:g}, or the stage of "
                "tasks is longer than the run: lower it, or raise mixing"
            )
        if self.order == "mixed" and self.tasks_share > 1 - self.replay_share:
            raise UserError(
                f"study.tasks_share {self.tasks_share} and replay_share {self.replay_share} are more than all tokens: lower one"
            )
        self.optimizer.check("study.optimizer")

    @property
    def _has_two(self) -> bool:
        return self.order in ("knowledge_then_tasks", "tasks_then_knowledge")

    @property
    def needs_tasks(self) -> bool:
        return self.order != "knowledge_only"

    def stages(self) -> list[StudyStage]:
        """Return the stages, whose tokens sum to `tokens` up to rounding; every order of two stages and the mixed one read the same mix."""
        own = 1 - self.replay_share
        if self.order in ("tasks_only", "knowledge_only"):
            source = TASKS if self.order == "tasks_only" else TEXT
            return [StudyStage(source, {source: own, REPLAY: self.replay_share}, self.tokens)]
        if self.order == "mixed":
            weights = {TASKS: self.tasks_share, TEXT: own - self.tasks_share, REPLAY: self.replay_share}
            return [StudyStage("mixed", weights, self.tokens)]
        share = self.tasks_share / (self.mixing * own)
        of_tasks = {TASKS: self.mixing * own, TEXT: (1 - self.mixing) * own, REPLAY: self.replay_share}
        last = StudyStage("tasks", of_tasks, max(1, round(share * self.tokens)))
        first = StudyStage("knowledge", {TEXT: own, REPLAY: self.replay_share}, max(1, self.tokens - last.tokens))
        return [first, last] if self.order == "knowledge_then_tasks" else [last, first]


COMMON = (
    *("model", "corpus.path", "domain.path", "general.path", "tasks.path", "seed", "study.tokens", "study.order", "study.tasks_share"),
    *("study.replay_share", "study.optimizer.learning_rate", "study.tokens_per_step", "study.window_tokens", "lora.rank", "save_steps"),
    "machine.device",
)
"""The settings that help shows first."""


@dataclass(frozen=True)
class AdaptSettings:
    """Settings of an adaptation: model, text, solved tasks, stages, and the suite."""

    corpus: Corpus = field(default_factory=Corpus)
    """The text: a general corpus to select from, or only domain text (`selection.method all`)."""
    domain: Corpus = field(default_factory=Corpus)
    """Examples of the domain, for the selection."""
    general: Corpus = field(default_factory=Corpus)
    """General text to replay; by default sampled from what the selection leaves."""
    model: str = "smollm2-135m"
    """Model to train: a bundled name, a folder (of a model or a PEFT LoRA adapter), a .gguf file or a hub id."""
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    grader: Grader = field(default_factory=Grader)
    """A model that grades the educational value of selected text; none unless grader.model names one."""
    tasks: SolvedTasks = field(default_factory=SolvedTasks)
    """Tasks with answers, of the split train."""
    writer: PassageWriter = field(default_factory=PassageWriter)
    """The writer of passages, if study.task_format is passages."""
    study: Study = field(default_factory=Study)
    lora: LoRA = field(default_factory=LoRA)
    suite: DomainSuite = field(default_factory=DomainSuite)
    """The suite measured before and after; its questions are kept out of the text."""
    save_steps: int = 50
    """Steps between checkpoints; 0 = only at the end of a stage."""
    machine: Machine = field(default_factory=Machine)

    @property
    def has_general(self) -> bool:
        """Return whether general text has a source of its own."""
        return bool(self.general.path or self.general.dataset)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        self.corpus.check("corpus")
        self.selection.check("selection")
        if self.selection.method not in ("all", "random") or self.domain.path or self.domain.dataset:
            self.domain.check("domain")
        if self.has_general:
            self.general.check("general")
        elif self.study.replay_share and not self.selection.replay_tokens:
            raise UserError(
                f"study.replay_share {self.study.replay_share} needs general text: name some with general.path, let the selection keep "
                "some with selection.replay_tokens, or set study.replay_share 0"
            )
        if (told := self.writer.changed_settings()) and (self.study.task_format != "passages" or not self.study.needs_tasks):
            raise UserError(f"writer.{told[-1]} has no effect without passages: set study.task_format passages, or leave it out")
        at_least("save_steps", self.save_steps, 0)
        if self.study.needs_tasks and not self.tasks.is_given:
            raise UserError(
                f"study.order {self.study.order} needs solved tasks: name them with tasks.path, or set study.order knowledge_only"
            )


def adapt_defaults() -> dict[str, Any]:
    """Return the defaults of all settings by dotted name, without those that this function had to set."""
    said = ("corpus.path", "selection.method", "study.order", "study.replay_share")
    found = AdaptSettings(
        corpus=Corpus(path=["any"]), selection=Selection(method="all"), study=Study(order="knowledge_only", replay_share=0.0)
    )
    return {name: value for name, value in flatten(to_plain_values(found)).items() if name not in said}


def parse_adapt(path: Path, overrides: Sequence[str]) -> AdaptSettings:
    """Read the settings of a YAML file with `--key value` overrides. Raises UserError for wrong ones."""
    return parse(AdaptSettings, path, overrides)
