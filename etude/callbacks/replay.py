"""Replay general text and answers during practice, so that what they teach is not lost (`etude.learn.replay` has the formulas).

A file of text is read in pieces with their first token given; a file of questions gives answers to imitate. Identity: ratio 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etude.errors import UserError, at_least
from etude.evaluation.report.panels import Panel
from etude.fingerprints import fingerprint_of
from etude.rollouts.batch import RolloutBatch
from etude.tasks.choices import choices_of, remove_choices
from etude.tasks.files import ENDINGS, file_rows, find_file
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    from etude.learn.example import Example
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class ReplaySettings:
    """Replay of general text and answers during practice."""

    path: list[str]
    """Text files, JSONL with a column `text`, or files of questions with answers, which are imitated as demonstrations."""
    ratio: float
    """Replayed tokens per sampled own token, above 0."""
    nll_coef: float = 1.0
    """Coefficient of their negative log-likelihood; 0 = only the KL."""
    kl_coef: float = 0.0
    """Coefficient of their KL divergence from the reference model (the model at the start of practice); 0 = off."""
    window_tokens: int = 128
    """Length of the pieces of a text, in tokens."""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError("replay.path names no file: name one, or leave replay out")
        if self.ratio <= 0:
            raise UserError(f"replay.ratio must be above 0, got {self.ratio}: leave replay out for none")
        for name in ("nll_coef", "kl_coef"):
            if getattr(self, name) < 0:
                raise UserError(f"replay.{name} must be 0 (off) or more, got {getattr(self, name)}")
        if not (self.nll_coef or self.kl_coef):
            raise UserError("replay learns nothing with replay.nll_coef and replay.kl_coef both 0: set one of them above 0")
        at_least("replay.window_tokens", self.window_tokens, 3)


class ReplayCallback(Callback):
    """Adds the replay stream, and pieces to every update; these depend only on the seed, the step and the update's number."""

    name, Settings = "replay", ReplaySettings
    panels = (Panel("Replay", "nats per token", {"replay_nats": "replayed tokens"}),)
    excludes = (Excludes("learn.method", "set it to policy_gradient or imitation", "comes beside examples", values=("preference",)),)

    def check(self, settings: Mapping[str, Any]) -> None:
        probed = [*settings["retention.text"], *settings["retention.choices"]]
        if both := sorted({*map(normpath, self.settings.path)} & {*map(normpath, probed)}):
            raise UserError(
                f"replay.path and the probe both name {both[0]}: what is replayed does not tell what is forgotten; name another file"
            )
        if self.settings.kl_coef and settings["learn.lora.dropout"] and settings["learn.method"] == "imitation":
            raise UserError(
                f"replay.kl_coef compares the model with its start, which learn.lora.dropout {settings['learn.lora.dropout']} changes: set "
                "one of them to 0"
            )

    def prepare(self, run: "PracticeRun") -> None:
        self.pieces = pieces_of(self.settings, run.tokenizer, run.positions, run.data_folder, run.data.measured)
        run.data.inputs["the replayed text"] = fingerprint_of([piece.prompt, piece.completion] for piece in self.pieces)

    def start(self, run: "PracticeRun") -> None:
        from etude.learn.replay import Replay, replay_loss

        self.run = run
        if self.settings.kl_coef:
            run.add_reference()
        how = self.settings.ratio, self.settings.kl_coef, run.seed
        self.replay = Replay(self.pieces, *how, run.learner.with_reference)
        is_constant = run.settings.learn.loss_agg_mode == "seq-mean-token-sum-norm"
        run.add_stream(
            "replay",
            replay_loss(self.settings.nll_coef, self.settings.kl_coef),
            loss_agg_mode="seq-mean-token-sum-norm" if is_constant else "token-mean",
        )

    def before_update(self, batch: RolloutBatch) -> Metrics:
        self.replay.begin(batch.step, self.run.replay_factor)
        return {}

    def extra_examples(self, step: int, own_tokens: int) -> "list[Example]":
        return self.replay.pull(own_tokens)

    def after_update(self, batch: RolloutBatch) -> Metrics:
        return {"replay/tokens": self.replay.tokens}


def pieces_of(settings: ReplaySettings, tokenizer: Any, room: int, data: Path | None, measured: Sequence[Task]) -> "list[Example]":
    """Return the pieces of all files, of at most `room` tokens, without measured questions, whatever choices they have."""
    pieces = []
    for path in settings.path:
        if _is_text(path, data):
            pieces += _windows(settings, path, tokenizer, room, data)
        else:
            pieces += _answers(path, tokenizer, room, data, measured)
    if not pieces:
        raise UserError(f"replay.path: {', '.join(settings.path)} gave nothing that could be replayed: name other files")
    return pieces


def _is_text(path: str, data: Path | None) -> bool:
    """Return whether a file is a text: by its ending, or because its first row has a column `text` and no question."""
    if Path(path).suffix not in ENDINGS:
        return True
    _, row = next(iter(file_rows(find_file(path, data))))
    return "text" in row and not {"question", "prompt", "messages"} & row.keys()


def _windows(settings: ReplaySettings, path: str, tokenizer: Any, room: int, data: Path | None) -> "list[Example]":
    from etude.evaluation.retention import make_probe
    from etude.learn.example import Example
    from etude.suites.retention_probe import read_text

    text, window = read_text("replay.path", path, data), min(settings.window_tokens, room)
    probe = make_probe(text, [], tokenizer, window_tokens=window, text_tokens=len(text.encode()) + 1, room=room)
    return [Example(piece[:1], piece[1:]) for piece in probe.windows]


def _answers(path: str, tokenizer: Any, room: int, data: Path | None, measured: Sequence[Task]) -> "list[Example]":
    from etude.learn.example import Example
    from etude.rollouts.prompts import render_demonstration, render_prompts

    tasks = load_tasks(TaskSource(path=[path]), split="replay", n=None, seed=0, data=data)
    asked = {_bare(task) for task in measured}
    tasks = [task for task in tasks if _bare(task) not in asked]
    prompts = render_prompts(tokenizer, tasks, room)
    pieces = [Example(prompt, render_demonstration(tokenizer, task)) for task, prompt in zip(tasks, prompts, strict=True)]
    for task, piece in zip(tasks, pieces, strict=True):
        if (length := len(piece.prompt) + len(piece.completion)) > room:
            raise UserError(f"replay.path: {task.origin} has {length} tokens, prompt and answer; the model has room for {room}")
    return pieces


def _bare(task: Task) -> str:
    """Return the key of a task's question without its choices."""
    return Task(remove_choices(task.question, choices_of(task))).key
