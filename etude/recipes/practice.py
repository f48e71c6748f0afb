"""Practice: a model improves at tasks by its own attempts.

    evaluate → warm start → evaluate → learn preferences → evaluate → practise (sample, score, update; repeat) → evaluate → report

The loop knows neither which callbacks there are (`etude.training.callback`) nor how attempts are sampled (`etude.rollouts.sampler`). Every
stage leaves a file or a checkpoint. A resumed run skips finished measurements and stages, and continues from the last checkpoint.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from etude.console.reporter import Reporter, Silent
from etude.errors import UserError
from etude.evaluation.report.run_folder import report_folders
from etude.learn.update import update_on
from etude.recipes.advice import advice, expected_of_feedback
from etude.recipes.calls import configuration_for, keywords_with, reporter_for, run_folder, without_progress_bars
from etude.recipes.conclude import conclude
from etude.recipes.knowledge_first import check_adaptation, parse_adaptation, run_adaptation
from etude.recipes.objects import Objects
from etude.recipes.results import RunResult
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.batch import RolloutBatch
from etude.settings.arguments import arguments_from
from etude.training.callback import Callback, Decision
from etude.training.callback_list import CallbackList
from etude.training.given import Given
from etude.training.interruption import Interrupted
from etude.training.ledger import Ledger
from etude.training.measuring import evaluate_suites
from etude.training.parse import callbacks_of, changed_settings, check_objects, check_settings, parse_practice, practice_defaults
from etude.training.practice_run import PracticeRun
from etude.training.reward_checks import check_rewards
from etude.training.rollout_metrics import attempt_rows, rollout_metrics, step_seconds
from etude.training.run import open_run
from etude.training.settings import PracticeSettings
from etude.training.stage import Stage
from etude.training.stages import learn_from_comparisons, warm_start


@without_progress_bars()
def practice(
    recipe: PracticeSettings | str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    model: Any = None,
    tasks: Any = None,
    evaluation: Any = None,
    reward: Any = None,
    reward_weights: Sequence[float] | Mapping[str, float] | None = None,
    callbacks: Sequence[Callback] = (),
    run: Path | str | None = None,
    data: Path | str | None = None,
    resume: bool = False,
    verbose: bool | None = None,
    reporter: Reporter | None = None,
    **more: Any,
) -> RunResult:
    """Train a model on tasks by its own attempts, and return what `result.json` holds.

    >>> def short(completions, **columns):
    ...     return [1 / (1 + len(text.split())) for text in completions]
    >>> practice(model="smollm2-135m", tasks=["What is the sun?", "Where is Rome?"], reward=short, steps=20)  # doctest: +SKIP

    `model` is a name, a path or a hub id, or a loaded model with its tokenizer, (model, tokenizer), which the run does not change.
    `tasks` are texts, dictionaries, `Task`s, a `datasets.Dataset`, a file or a family. `evaluation` is the same, or suites by name; without
    it, a fifth of the tasks is held out. `reward` is a function, several functions that are added up with `reward_weights`, or a verifier
    (`etude.rewards.functions` has the forms, TRL's among them). `callbacks` are objects in addition to those in the settings.

    `recipe` is a configuration that ships (`etude.configs`), a YAML file or `PracticeSettings`; without it `default` for tasks of one's
    own. Other settings are keywords, `steps=20, rollout={"num_samples": 4}`, or a mapping by dotted name, `{"rollout.num_samples": 4}`.

    `run` is the run folder; without it the first free one of `runs/NAME`, `runs/NAME-2`, ... `data` is the folder of data sets. With
    `resume`, a run that was interrupted goes on. `verbose` prints progress; without it, in a terminal or a notebook only.
    Raises UserError for input that can't be used, before anything is written.
    """
    reporter = reporter or reporter_for(verbose)
    if isinstance(recipe, PracticeSettings):
        if settings or more or any(each is not None for each in (model, tasks, evaluation, reward, reward_weights)):
            raise UserError("PracticeSettings are used as they are: change them with dataclasses.replace, or name a recipe")
        folder = Path(run) if run else run_folder("practice", resume=resume)
        result = practice_named(recipe, "practice", run=folder, data=data, resume=resume, reporter=reporter, callbacks=callbacks)
        return RunResult(result, folder)
    path = configuration_for("practice", "default" if recipe is None else recipe)
    folder = Path(run) if run else run_folder(path.stem, resume=resume)
    objects = Objects(folder, keywords_with(settings, more))
    objects.take(model, tasks, evaluation, reward, reward_weights, Path(data) if data else None)
    parsed = parse_practice(path, arguments_from(objects.settings, PracticeSettings))
    how: dict[str, Any] = {"run": folder, "data": data, "resume": resume, "reporter": reporter}
    return RunResult(practice_named(parsed, path.stem, **how, callbacks=callbacks, given=objects.given), folder)


def practice_named(
    settings: PracticeSettings,
    name: str,
    *,
    run: Path | str,
    data: Path | str | None,
    resume: bool,
    reporter: Reporter | None,
    callbacks: Sequence[Callback] = (),
    given: Given | None = None,
) -> dict[str, Any]:
    """Run `practice` with resolved settings; `name` is the recipe's name in the results."""
    given = given or Given()
    check_settings(settings)
    check_objects(callbacks, settings)
    with open_run(Path(run), settings, defaults=practice_defaults(), resume=resume, pages=report_folders) as opened:
        if opened.result:
            return opened.result
        isolation: dict[str, Any] = {"isolate": settings.isolate_verifiers, "right_at": settings.tasks.right_at, "function": given.function}
        with given.written(opened.folder), VerifierReward(settings.timeout_seconds, **isolation) as verifiers:
            where = opened.folder, Path(data) if data else None, reporter or Silent(), opened.interruption
            found = CallbackList([*callbacks_of(settings), *callbacks])
            return Loop(PracticeRun(settings, name, *where, verifiers=verifiers), found).practise()


@dataclass
class Loop:
    """A run of practice with its callbacks."""

    run: PracticeRun
    callbacks: CallbackList

    def practise(self) -> dict[str, Any]:
        """Run all stages, then conclude."""
        run, settings = self.run, self.run.settings
        self.prepare()
        pages = {"base": evaluate_suites(run, "base")}
        warm_start(run)
        pages["warm_start"] = evaluate_suites(run, "warm_start") if settings.warm_start.steps else pages["base"]
        learn_from_comparisons(run)
        pages["preference"] = evaluate_suites(run, "preference") if settings.preferences.steps else pages["warm_start"]
        for sentence in expected_of_feedback(settings, pages["preference"]["suites"]):
            run.reporter.say(sentence)
        if settings.steps:
            self.start()
            run.train(self.stage, run.learner, self.ledger, begin=run.read_history)
            self.callbacks.after_practice()
            run.engine.sync_weights(run.engine.policy_version + 1)
        pages["practice"] = evaluate_suites(run, "practice", unchanged=None if settings.steps else pages["preference"])
        with suppress(Interrupted), run.interruption.whole():  # too late to interrupt
            result = conclude(run, pages, self.callbacks if settings.steps else CallbackList(), report_folders(run.folder.path))
        return result

    def prepare(self) -> None:
        """Load everything, then create the run folder, so that a mistake in the input leaves no folder."""
        run, adaptation = self.run, parse_adaptation(self.run.settings)
        if adaptation is not None:
            check_adaptation(adaptation, run.folder.path, run.data_folder)
        run.load(reserved=self.callbacks.num_reserved_tasks, own_tasks=self.callbacks.load_tasks)
        self.callbacks.prepare(run)
        changed = changed_settings(run.name, run.settings)
        run.begin(None if adaptation is None else partial(run_adaptation, adaptation, run), changed_settings=changed)
        for sentence in advice(run.settings, run.data.demonstrations, run.engine.text_of):
            run.reporter.say(sentence)

    def start(self) -> None:
        """Begin the practice stage: learner, sampler, callbacks."""
        run, settings = self.run, self.run.settings
        self.ledger = Ledger(run.folder.path / "ledger")
        sizes: dict[str, Any] = {"order": 0, "total": settings.steps, "every": settings.save_steps, "saves_last": True}
        self.stage = Stage("practice", "step-", page="practice", prepare=self.rollout, update=self.update, **sizes)
        run.start_practice()
        self.callbacks.start(run)
        run.once("panels.json", lambda: {"panels": self.callbacks.panels})
        if self.callbacks.can_roll_back and not run.folder.checkpoints("step-"):
            run.hold(0, self.stage, run.learner)

    def rollout(self, step: int) -> RolloutBatch:
        """Return the scored attempts of a step, from the ledger if it has them. A signal may interrupt it."""
        run, number = self.run, self.run.settings.rollout.tasks_per_step
        chosen = self.callbacks.select_tasks(step, number)
        items = run.data.batch(step, number, run.seed) if chosen is None else [run.data.items[place] for place in chosen]
        if kept := self.ledger.read(step, [task for task, _ in items]):
            return kept
        counts = run.count()
        self.callbacks.before_rollout(step)
        batch = run.sampler.sample(step, items)
        self.callbacks.after_rollout(batch)
        batch.metrics |= run.counted_since(counts)
        check_rewards(run.settings, batch, self.callbacks.unit_rewards)
        self.ledger.write(batch)
        return batch

    def update(self, step: int, batch: RolloutBatch) -> None:
        """Learn from a step and log it; a signal waits for its end."""
        run, callbacks, start = self.run, self.callbacks, time.perf_counter()
        batch.begin_update()
        run.engine.offload_weights()
        row = callbacks.before_update(batch)
        how: dict[str, Any] = {"on_examples": callbacks.on_examples(batch), "extra": callbacks.extra_examples(step)}
        row |= update_on(run.learner, batch, run.settings.learn, **how)
        row |= callbacks.after_update(batch)
        row |= rollout_metrics(batch, run.settings, with_parts=run.reward.has_parts)
        run.engine.sync_weights(step)
        seconds = step_seconds(batch, time.perf_counter() - start)
        run.folder.write_attempts(step, attempt_rows(batch, with_parts=run.reward.has_parts))
        decision = callbacks.decide(step, row, run.history, is_last=step == run.settings.steps)
        run.log("practice", step, row, seconds)
        run.history.append({"phase": "practice", "step": step, **row})
        self.apply(step, decision)

    def apply(self, step: int, decision: Decision) -> None:
        """Hold the model, roll back or stop; called after logging, since a checkpoint must follow the log row."""
        self.run.is_over = decision.stop
        if decision.rollback:
            self.run.rollback(self.stage, self.run.learner)
            self.callbacks.on_rollback()
        elif decision.hold:
            self.run.hold(step, self.stage, self.run.learner)
