"""Practice: a model gets better at tasks by its own attempts. The loop knows neither which callbacks there are nor how attempts are sampled.

    evaluate the model as it came → warm start → evaluate → learn preferences → evaluate → practise (sample, score, update; repeat) → evaluate
    → report

Every stage leaves a file or a checkpoint. A resumed run skips measurements and stages that are there, and goes on from the last checkpoint.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

from etude.console.watching import Quiet, Watcher
from etude.errors import UserError
from etude.learn.example import Example
from etude.learn.update import update_on
from etude.recipes.advice import advice, expected_of_feedback
from etude.recipes.calls import configuration_for, settings_are_a_mapping, without_bars
from etude.recipes.knowledge_first import adaptation_of, adapted, check_adaptation, told_by
from etude.rewards.outcome import OutcomeFeedback
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.order import batch_at
from etude.settings.configuration import arguments_from
from etude.tasks.task import Task
from etude.training.callback import Callback, Metrics, joined
from etude.training.conclude import conclude, save
from etude.training.interruption import Interrupted
from etude.training.ledger import Ledger
from etude.training.measuring import evaluate_suites
from etude.training.parse import callbacks_of, check_settings, parse_practice, practice_defaults
from etude.training.practice_run import PracticeRun
from etude.training.reward_checks import check_rewards
from etude.training.rollout_metrics import attempt_rows, rollout_metrics, step_seconds
from etude.training.run import open_run
from etude.training.settings import PracticeSettings
from etude.training.stage import Stage
from etude.training.stages import learn_from_comparisons, warm_start


@without_bars()
def practice(
    settings: PracticeSettings | str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    run: Path | str | None = None,
    data: Path | str | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    callbacks: Sequence[Callback] = (),
    **keywords: Never,
) -> dict[str, Any]:
    """Run practice and return what `result.json` holds.

    `settings` is the name of a configuration that ships, a YAML file or `PracticeSettings`; `overrides` of the first two are settings with
    plain values, by dotted name or by section, `{"explore.num_samples": 4, "tasks": {"path": ["mine.jsonl"]}}`. `run` is the run folder
    (default `runs/NAME`), `data` the folder of data sets. `callbacks` are objects beside those that the settings list. There are no other
    keywords.

    >>> practice("quickstart", {"steps": 40}, run="runs/first")  # doctest: +SKIP
    """
    settings_are_a_mapping("practice", keywords)
    name = "practice"
    if not isinstance(settings, PracticeSettings):
        path = configuration_for("practice", settings)
        name = path.stem
        settings = parse_practice(path, arguments_from(overrides or {}, PracticeSettings))
    elif overrides:
        raise UserError("overrides change a configuration that is given by name or file: change PracticeSettings with dataclasses.replace")
    folder = run or Path("runs") / name
    return practice_named(settings, name, run=folder, data=data, resume=resume, watcher=watcher, callbacks=callbacks)


def practice_named(
    settings: PracticeSettings,
    name: str,
    *,
    run: Path | str,
    data: Path | str | None,
    resume: bool,
    watcher: Watcher | None,
    callbacks: Sequence[Callback] = (),
) -> dict[str, Any]:
    """`practice` with settings that are resolved already; `name` is the recipe's name in the results."""
    check_settings(settings)
    with open_run(Path(run), settings, defaults=practice_defaults(), resume=resume, pages=told_by) as opened:
        if opened.result:
            return opened.result
        isolation: dict[str, Any] = {"isolate": settings.isolate_verifiers, "right_at": settings.tasks.right_at}
        with OutcomeFeedback(settings.timeout_seconds, **isolation) as verifiers:
            where = opened.folder, Path(data) if data else None, watcher or Quiet(), opened.interruption
            loop = Loop(PracticeRun(settings, name, *where, verifiers=verifiers), [*callbacks_of(settings), *callbacks])
            return loop.practise()


@dataclass
class Loop:
    """A run of practice with its callbacks."""

    run: PracticeRun
    callbacks: list[Callback]

    def practise(self) -> dict[str, Any]:
        """Make all stages, and conclude."""
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
            run.train(self.stage, run.learner, self.ledger, begin=self.begin)
        pages["practice"] = evaluate_suites(run, "practice", unchanged=None if settings.steps else pages["preference"])
        with suppress(Interrupted), run.interruption.whole():  # a signal that comes now comes too late
            save(run, self.callbacks if settings.steps else [])
            result = conclude(run, pages, self.callbacks if settings.steps else [], told_by(run.folder.path))
        return result

    def prepare(self) -> None:
        """Load everything, then make the run folder, which a mistake in the input so leaves unmade."""
        run, settings, adaptation = self.run, self.run.settings, adaptation_of(self.run.settings)
        if adaptation is not None:
            check_adaptation(adaptation, run.folder.path, run.data_folder)
        run.load(reserved=sum(callback.num_reserved_tasks for callback in self.callbacks), own_tasks=self.own_tasks)
        for callback in self.callbacks:
            callback.prepare(run)
        made = (adaptation, Path(str(settings.adaptation)).stem, run.folder.path, run.data_folder, run.reporter)
        run.begin(None if adaptation is None else lambda: adapted(*made))  # type: ignore[arg-type]
        for sentence in advice(settings, run.data.demonstrations, run.engine.text_of):
            run.reporter.say(sentence)

    def start(self) -> None:
        """Begin the stage of practice: learner, sampler, callbacks."""
        run, settings = self.run, self.run.settings
        self.ledger = Ledger(run.folder.path / "ledger")
        sizes: dict[str, Any] = {"order": 0, "total": settings.steps, "every": settings.checkpoint_every, "saves_last": True}
        self.stage = Stage("practice", "step-", page="practice", prepare=self.rollout, update=self.update, **sizes)
        run.start_practice()
        run.sampler.check(run.data.items)
        run.read_history()
        for callback in self.callbacks:
            callback.start(run)
        run.state = {callback.name: callback for callback in self.callbacks}
        run.survives_rollback = {callback.name for callback in self.callbacks if not callback.rolls_back}
        if any(callback.can_roll_back for callback in self.callbacks) and not run.folder.checkpoints("step-"):
            run.hold(0, self.stage, run.learner)

    def begin(self) -> None:
        """Take the log up, which is cut to the last checkpoint."""
        self.run.read_history()

    def rollout(self, step: int) -> RolloutBatch:
        """Return the scored attempts of a step: from the ledger where they were made before. A signal may end it."""
        run, items = self.run, self.tasks(step)
        if kept := self.ledger.read(step, [task for task, _ in items]):
            return kept
        counts, peak = run.reward.counts(), run.engine.take_peak_bytes()
        for callback in self.callbacks:
            callback.before_rollout(step)
        batch = run.sampler.sample(step, items)
        for callback in self.callbacks:
            callback.after_rollout(batch)
        batch.metrics |= {name: number - counts[name] for name, number in run.reward.counts().items()}
        if (peak := run.engine.take_peak_bytes()) is not None:
            batch.metrics["context_mib"] = peak / 2**20
        check_rewards(run.settings, batch, {callback.name: callback.unit_rewards for callback in self.callbacks if callback.unit_rewards})
        self.ledger.write(batch)
        return batch

    def update(self, step: int, batch: RolloutBatch) -> None:
        """Learn from a step, log it, then apply what the callbacks decided; a signal waits for its end."""
        run, start = self.run, time.perf_counter()
        batch.begin_update()
        run.engine.put_away()
        row = self.each("before_update", batch)
        row |= update_on(
            run.learner, batch, run.settings.learn, on_examples=lambda found: self.on_examples(batch, found), extra=self.extra(step)
        )
        row |= self.each("after_update", batch)
        row |= rollout_metrics(batch, run.settings, with_parts=not run.reward.is_plain)
        run.engine.refresh(step)
        seconds = step_seconds(batch, time.perf_counter() - start)
        run.folder.write_attempts(step, attempt_rows(batch, with_parts=not run.reward.is_plain))
        self.decide(step, row, seconds)

    def decide(self, step: int, row: Metrics, seconds: Mapping[str, float]) -> None:
        """Log a step, then hold the model, roll back or stop; a checkpoint has to follow its log row."""
        run, decisions, is_last = self.run, [], step == self.run.settings.steps
        for callback in self.callbacks:
            decision, seen = callback.decide(step, {**row, "step": step}, run.history, is_last=is_last)
            decisions.append(decision)
            is_last = is_last or decision.stop
            row |= seen
        run.log("practice", step, row, seconds)
        run.history.append({"phase": "practice", "step": step, **row})
        decision = joined(decisions)
        run.is_over = decision.stop
        if decision.rollback:
            run.rollback(self.stage, run.learner)
            for callback in self.callbacks:
                callback.on_rollback()
        elif decision.hold:
            run.hold(step, self.stage, run.learner)

    def tasks(self, step: int) -> list[tuple[Task, tuple[int, ...]]]:
        """Return the tasks of a step with their prompts: by the first callback that selects, else in epochs."""
        run, number = self.run, self.run.settings.explore.tasks_per_step
        chosen = next((found for callback in self.callbacks if (found := callback.select_tasks(step, number)) is not None), None)
        return (
            batch_at(step, run.data.items, number, run.seed, "practice") if chosen is None else [run.data.items[place] for place in chosen]
        )

    def own_tasks(self, *source: Any) -> list[Task] | None:
        """Return training tasks of the first callback that loads some."""
        return next((found for callback in self.callbacks if (found := callback.load_tasks(*source)) is not None), None)

    def on_examples(self, batch: RolloutBatch, examples: list[list[Example]]) -> list[list[Example]]:
        for callback in self.callbacks:
            examples = callback.on_examples(batch, examples)
        return examples

    def extra(self, step: int) -> Any:
        return lambda own_tokens: [each for callback in self.callbacks for each in callback.extra_examples(step, own_tokens)]

    def each(self, hook: str, batch: RolloutBatch) -> Metrics:
        """Call one hook of all callbacks, in order; no two report the same metric."""
        found: Metrics = {}
        for callback in self.callbacks:
            for name, value in getattr(callback, hook)(batch).items():
                assert name not in found, f"{callback.name} reports {name} again"
                found[name] = value
        return found
