"""The data of a practice run: training tasks, demonstrations and suites, disjoint by canonical key and tokenized."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.evaluation.baselines import trivial_baselines
from etude.evaluation.measure import Suite, Verify
from etude.evaluation.settings import Evaluation
from etude.learn.example import Example, demonstration
from etude.learn.pairs import Pair
from etude.rollouts.order import batch_at
from etude.rollouts.prompts import render_answer, render_demonstration, render_prompts
from etude.tasks.actions import add_instruction
from etude.tasks.checks import check_answers
from etude.tasks.comparisons import Comparison, load_comparisons
from etude.tasks.files import find_file
from etude.tasks.overlap import family_space, ngram_overlap, overlap
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task, with_system
from etude.training.combinations import check_tasks_per_step
from etude.training.settings import PracticeSettings
from etude.training.writing_demonstrations import writing_demonstrations

_SPACE_DRAWS = 4000
_NEAR_COPY = 0.5
"""An evaluation item is a near copy if this share of its 8-word pieces occurs in training items."""
_GENERATED_EVALUATION = 1000
_SHOTS = 3
"""Examples before a writing demonstration, if no model writes tasks."""


@dataclass
class RunData:
    """Tasks by role, and their token ids."""

    train: list[Task]
    shown: list[Task]
    """The tasks that demonstrations show."""
    comparisons: list[Comparison]
    evaluation: dict[str, list[Task]]
    """Evaluation tasks by suite."""
    facts: dict[str, float]
    """Numbers for the report: sizes, overlap, a lower bound of a family's number of items."""
    items: list[tuple[Task, tuple[int, ...]]] = field(default_factory=list)
    """Practice tasks with their prompts; a callback may take some."""
    demonstrations: list[Example] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    suites: list[Suite] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the files that callbacks loaded, by readable name."""

    @property
    def measured(self) -> list[Task]:
        """Every evaluation task."""
        return [task for tasks in self.evaluation.values() for task in tasks]

    def batch(self, step: int, number: int, seed: int) -> list[tuple[Task, tuple[int, ...]]]:
        """Return the tasks of practice step `step`, counted from 1; each task comes once an epoch."""
        return batch_at(step, self.items, number, seed, "practice")

    def render(self, settings: PracticeSettings, tokenizer: Any, room_tokens: int, positions: int, judge: Verify) -> None:
        """Tokenize everything; a prompt has at most `room_tokens`, with its answer at most `positions`. Raises UserError."""
        self.items = list(zip(self.train, render_prompts(tokenizer, self.train, room_tokens), strict=True))
        self.demonstrations = render_demonstrations(tokenizer, self.shown, positions)
        synthetic = settings.callbacks.get("synthetic_tasks")
        sizes: dict[str, int] = {"n": settings.warm_start.writing, "shots": synthetic.shots if synthetic else _SHOTS}
        self.demonstrations += writing_demonstrations(tokenizer, self.shown, **sizes, seed=settings.seed, max_tokens=positions)
        self.pairs = render_comparisons(tokenizer, self.comparisons, positions)
        taught = [*self.train, *self.shown, *(each.task for each in self.comparisons)]
        self.suites = render_suites(self.evaluation, tokenizer, room_tokens, taught, judge)


LoadTasks = Callable[[TaskSource, int | None, int], list[Task] | None]
"""(source, number, seed) → training tasks; None: those of the source."""


def load_data(
    settings: PracticeSettings, name: str, data: Path | None, *, reserved: int = 0, own_tasks: LoadTasks = lambda *_: None
) -> RunData:
    """Load all data; training items that are also in a suite are removed and counted. Raises UserError.

    `reserved` tasks are loaded in addition to the practice tasks.
    """
    suites = load_suites(settings.evaluation, settings.tasks, name, settings.seed, data, settings.system)
    size = train_size(settings, reserved)
    loaded = own_tasks(settings.tasks, size, settings.seed)
    train = load_tasks(settings.tasks, split="train", n=size, seed=settings.seed, data=data) if loaded is None else loaded
    if "verifier" in settings.reward_parts and "verifier" not in settings.reward_optional:
        check_answers(train)
    demonstrations = _demonstrations(settings, train, data)
    comparisons = load_comparisons(settings.preferences.path, settings.preferences.columns, settings.preferences.n, data)
    measured = [task for tasks in suites.values() for task in tasks]
    train, shared_train = _without(with_system(train, settings.system), measured)
    demonstrations, shared_demonstrations = _without(with_system(demonstrations, settings.system), measured)
    if not train:
        raise UserError("every training item stands in the evaluation too: name another evaluation set")
    if settings.steps:
        check_tasks_per_step(settings, len(train))
    if settings.warm_start.steps and not demonstrations:
        raise UserError("every demonstration stands in the evaluation too: name others with warm_start.path, or another evaluation set")
    asked = add_instruction(with_system([each.task for each in comparisons], settings.system), settings.tasks.actions.words)
    kept, shared_comparisons = _without(asked, measured)
    keys = {task.key for task in kept}
    comparisons = [replace(each, task=task) for each, task in zip(comparisons, asked, strict=True) if task.key in keys]
    if settings.preferences.steps and not comparisons:
        raise UserError("every prompt of preferences.path stands in the evaluation too: name other files, or another evaluation set")
    facts: dict[str, float] = {
        "train": len(train),
        "demonstrations": len(demonstrations),
        "evaluation": len(measured),
        "overlap_removed": shared_train + shared_demonstrations + shared_comparisons,
        "near_copies": sum(
            share >= _NEAR_COPY for share in ngram_overlap([*train, *demonstrations, *(each.task for each in comparisons)], measured)
        ),
    }
    if settings.tasks.family:
        space = family_space(settings.tasks, _SPACE_DRAWS, settings.seed)
        drawn = len({task.key for task in [*train, *demonstrations, *measured]})
        facts |= {"space_draws": space.draws, "space_distinct": space.distinct, "space_at_least": space.items_low}
        facts |= {"drawn_share": drawn / space.items_low}
    if comparisons:
        facts["comparisons"] = len(comparisons)
    return RunData(train, demonstrations, comparisons, suites, facts)


def load_suites(
    evaluation: Evaluation, tasks: TaskSource | None, name: str, seed: int, data: Path | None, system: str | None
) -> dict[str, list[Task]]:
    """Load suites by name: the source's own evaluation split if it has splits (files by `split_by`), and one for each file."""
    suites: dict[str, list[Task]] = {}
    if tasks is not None and (tasks.split_by or not tasks.path) and evaluation.own:
        n = evaluation.n or (None if tasks.dataset or tasks.path else _GENERATED_EVALUATION)
        suites[name] = load_tasks(tasks, split=evaluation.split, n=n, seed=seed, data=data)
    for other, parameters in evaluation.parameters.items():
        if tasks is None or tasks.family is None:
            raise UserError(f"evaluation.parameters.{other} changes parameters of tasks.family, which is not set: leave it out")
        if other in suites:
            raise UserError(f"evaluation.parameters: two suites would be called {other!r}: give it another name")
        source, n = replace(tasks, parameters={**tasks.parameters, **parameters}), evaluation.n or _GENERATED_EVALUATION
        suites[other] = load_tasks(source, split=evaluation.split, n=n, seed=seed, data=data)
    for path in evaluation.path:
        source = _files_like(tasks, [path])
        suites[_suite_name(path, [*suites])] = load_tasks(source, split=evaluation.split, n=evaluation.n, seed=seed, data=data)
    if not suites:
        for path in tasks.path if tasks is not None else ():
            find_file(path.replace("{split}", "train"), data)  # raises the precise error
        raise UserError("there is nothing to measure: set evaluation.path to one or more files, or split the tasks with tasks.split_by")
    for loaded in suites.values():
        check_answers(loaded)
    return {suite: with_system(loaded, system) for suite, loaded in suites.items()}


def _suite_name(path: str, taken: Sequence[str]) -> str:
    """Return the file's stem, after the folder's name if another suite has that stem."""
    stem = Path(path).stem
    name = f"{Path(path).resolve().parent.name}/{stem}" if stem in taken else stem
    if name in taken:
        raise UserError(f"evaluation.path: two suites would be called {name!r}: rename one of the files")
    return name


def render_suites(suites: dict[str, list[Task]], tokenizer: Any, room_tokens: int, train: Sequence[Task], judge: Verify) -> list[Suite]:
    """Return the suites with their prompts and trivial baselines."""
    return [
        Suite(name, tasks, render_prompts(tokenizer, tasks, room_tokens), *trivial_baselines(train, tasks, judge))
        for name, tasks in suites.items()
    ]


def check_golds(tasks: Sequence[Task], judge: Verify) -> None:
    """Check that the math verifier can read the gold answers, in the child process; the others were checked on loading."""
    asked = [(task.answer, task) for task in tasks if task.verifier == "math" and task.answer is not None]
    for (_, task), reward in zip(asked, judge(asked), strict=True):
        if not reward.is_right:
            raise UserError(f"{task.origin}: the math verifier cannot read the answer: {reward.message or 'it refuses it'}")


def render_demonstrations(tokenizer: Any, tasks: Sequence[Task], max_tokens: int) -> list[Example]:
    """Tokenize demonstrations as examples to imitate. Raises UserError with the origin of one that exceeds `max_tokens` with its prompt."""
    prompts = render_prompts(tokenizer, tasks, max_tokens)
    shown = [demonstration(prompt, render_demonstration(tokenizer, task)) for prompt, task in zip(prompts, tasks, strict=True)]
    for task, example in zip(tasks, shown, strict=True):
        _check_room(task, len(example.prompt) + len(example.completion), max_tokens)
    return shown


def render_comparisons(tokenizer: Any, comparisons: Sequence[Comparison], max_tokens: int) -> list[Pair]:
    """Tokenize compared answers as pairs, with the same limit."""
    prompts = render_prompts(tokenizer, [each.task for each in comparisons], max_tokens)
    pairs = [
        Pair(prompt, render_answer(tokenizer, each.chosen), render_answer(tokenizer, each.rejected))
        for prompt, each in zip(prompts, comparisons, strict=True)
    ]
    for each, pair in zip(comparisons, pairs, strict=True):
        _check_room(each.task, len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)), max_tokens)
    return pairs


def _check_room(task: Task, length: int, max_tokens: int) -> None:
    if length > max_tokens:
        raise UserError(f"{task.origin or 'a demonstration'} has {length} tokens, prompt and answer; the model has room for {max_tokens}")


def train_size(settings: PracticeSettings, reserved: int = 0) -> int | None:
    """Return how many training tasks are loaded, `reserved` included; None: all."""
    if settings.n is not None or not (settings.tasks.family or settings.tasks.function):
        return settings.n
    return reserved + max(1, settings.steps) * settings.rollout.tasks_per_step


def _demonstrations(settings: PracticeSettings, train: Sequence[Task], data: Path | None) -> list[Task]:
    warm = settings.warm_start
    if not warm.steps:
        return []
    if warm.path:
        return load_tasks(_files_like(settings.tasks, warm.path), split="demonstrations", n=warm.n or None, seed=settings.seed, data=data)
    if settings.tasks.family or settings.tasks.function:
        return load_tasks(settings.tasks, split="demonstrations", n=warm.n, seed=settings.seed, data=data)
    worked = [task for task in train if task.worked is not None]
    kind = "worked steps" if worked else "an answer"
    worked = worked or [task for task in train if task.answer is not None]
    if not worked or len(worked) < warm.n:
        raise UserError(
            f"warm_start.n is {warm.n or 'all'}, but only {len(worked)} training items have {kind}: "
            "lower it, name demonstrations with warm_start.path, or leave the warm start out with warm_start.steps 0"
        )
    return worked[: warm.n or None]


def _files_like(tasks: TaskSource | None, path: list[str]) -> TaskSource:
    """Return a source of these files, read like the source's own files if it has some; prompts and verifiers are the source's."""
    if tasks is None:
        return TaskSource(path=path)
    return replace(tasks, path=path) if tasks.path else TaskSource(path=path, **_judged_like(tasks))


def _judged_like(tasks: TaskSource) -> dict[str, Any]:
    """Return how tasks are prompted and scored, whatever source they have."""
    return {"verifier": tasks.verifier, "right_at": tasks.right_at, "actions": tasks.actions}


def _without(tasks: Sequence[Task], measured: Sequence[Task]) -> tuple[list[Task], int]:
    shared = {found.key for _, found in overlap(tasks, measured)}
    kept = [task for task in tasks if task.key not in shared]
    return kept, len(tasks) - len(kept)
