"""Practice: a model gets better at tasks by its own attempts.

    measure the model as it came → warm start → measure → learn preferences → measure → practise (explore, judge, learn, again) → measure
    → report

Every stage leaves a file or a checkpoint. A resumed run skips measurements and stages that are there, and goes on from the last checkpoint.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Never

from etude.cards.practice_card import write_cards
from etude.console.reporter import Reporter, Silent
from etude.device.limits import within_limits
from etude.device.machine import decide, engine_at, facts_of, room_tokens
from etude.errors import UserError
from etude.evaluation.report import write_report
from etude.evaluation.retention import Probe
from etude.learn.entropy import EntropyBonus
from etude.learn.example import Example
from etude.learn.implicit_reward import ImplicitReward
from etude.learn.learner import Learner
from etude.learn.length import controlled
from etude.learn.replay import Replay
from etude.learn.shaping import shaped
from etude.learn.step_model import StepModel
from etude.learn.step_values import outlooks_of
from etude.models.adapters import add_lora, check_targets
from etude.models.load import load_model
from etude.randomness import seed_for
from etude.recipes.advice import advice, expected_of_feedback
from etude.recipes.alarm import Alarm, alarm_for
from etude.recipes.before_practice import imitate_demonstrations, learn_from_comparisons
from etude.recipes.believing import believing_for, without_labelled
from etude.recipes.calls import configuration_for, reject_keywords, without_progress_bars
from etude.recipes.divergence import moved_from_start, start_answers
from etude.recipes.exploring import Exploring, curriculum_for
from etude.recipes.feedback import Feedback, random_rate
from etude.recipes.gating import Gating, story_of
from etude.recipes.holding import Holding
from etude.recipes.interrupted import add_resume_note
from etude.recipes.keeping import gating_for, holding_of, replay_for, spared
from etude.recipes.knowledge_first import check_adaptation, parse_adaptation, report_folders, run_adaptation
from etude.recipes.learners import entropy_bonus_for, implicit_reward_for, practice_learner, preference_learner, warm_start_learner
from etude.recipes.materials import check_golds, gather, render_comparisons, render_demonstrations, render_suites
from etude.recipes.measuring import known, measured
from etude.recipes.refining import refined
from etude.recipes.replaying import pieces_of
from etude.recipes.result import Page, result_of
from etude.recipes.saving import save_adapters, save_asked
from etude.recipes.self_made import self_making_for, writing_demonstrations
from etude.recipes.self_training import self_teaching_for
from etude.recipes.settings import PracticeSettings, parse_practice, practice_defaults
from etude.recipes.steering import steer
from etude.recipes.step import added_credit, attempt_rows, first_half, foresee, learn_from, observed
from etude.recipes.step_models import check_step_model, save_step_model, step_model_for, value_by
from etude.rewards.outcome import OutcomeFeedback
from etude.rewards.unscored import TooManyUnscored
from etude.rollouts.collapse import CollapseWatch
from etude.rollouts.prompts import render_prompt, render_prompts
from etude.settings.configuration import arguments_from, resolved
from etude.suites.retention_probe import probe_for, retention_questions
from etude.training.checkpoints import Stateful, load_checkpoint, save_checkpoint
from etude.training.inputs import inputs_of
from etude.training.interruption import Interrupted, Interruption
from etude.training.ledger import Judged, Ledger
from etude.training.run_folder import RunFolder, read_progress
from etude.training.stage import Stage


@without_progress_bars()
def practice(
    settings: PracticeSettings | str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    run: Path | str | None = None,
    data: Path | str | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **keywords: Never,
) -> dict[str, Any]:
    """Run practice and return what `result.json` holds.

    `settings` is the name of a configuration that ships, a YAML file or `PracticeSettings`; `overrides` of the first two are settings with
    plain values, by dotted name or by section, `{"explore.num_samples": 4, "tasks": {"path": ["mine.jsonl"]}}`. `run` is the run folder
    (default `runs/NAME`), `data` the folder of data sets. There are no other keywords.

    >>> practice("quickstart", {"steps": 40}, run="runs/first")  # doctest: +SKIP
    """
    reject_keywords("practice", keywords)
    name = "practice"
    if not isinstance(settings, PracticeSettings):
        path = configuration_for("practice", settings)
        name = path.stem
        settings = parse_practice(path, arguments_from(overrides or {}, PracticeSettings))
    elif overrides:
        raise UserError("overrides change a configuration that is given by name or file: change PracticeSettings with dataclasses.replace")
    return practice_named(settings, name, run=run or Path("runs") / name, data=data, resume=resume, reporter=reporter)


def practice_named(
    settings: PracticeSettings, name: str, *, run: Path | str, data: Path | str | None, resume: bool, reporter: Reporter | None
) -> dict[str, Any]:
    """`practice` with settings that are resolved already; `name` is the recipe's name in the results."""
    result = RunFolder(Path(run)).read_json("result.json") if resume else None
    if result and not (Path(run) / "report.html").exists():  # killed between its last two writes
        write_report(report_folders(Path(run)), Path(run) / "report.html")
        return result
    folder = RunFolder.start(Path(run), resolved(settings), resume=resume, defaults=practice_defaults())
    before = folder.read_json("environment.json")
    limits = within_limits(settings.machine, "go on with --resume, the last checkpoint is whole", before)
    how: dict[str, Any] = {"isolate": settings.isolate_verifiers, "right_at": settings.tasks.right_at}
    feedback = OutcomeFeedback(settings.timeout_seconds, **how)
    data_folder = Path(data) if data else None
    try:
        with limits, Interruption() as interruption, feedback as outcome:
            return Practice(settings, name, folder, data_folder, outcome, reporter or Silent(), interruption).run()
    except Interrupted as stop:
        add_resume_note(stop, folder)
        raise
    except TooManyUnscored as problem:
        if folder.is_begun:
            folder.let_be_repaired("the verifier ")
            raise TooManyUnscored(f"{problem}. Nothing is lost: then go on with --resume ({folder.path})") from problem
        raise
    finally:
        folder.release()


@dataclass
class Practice:
    """One run in progress: its stages, which `run` puts in order."""

    settings: PracticeSettings
    name: str
    folder: RunFolder
    data: Path | None
    outcome: OutcomeFeedback
    reporter: Reporter
    interruption: Interruption = field(default_factory=Interruption)
    step_model: StepModel | None = field(default=None, init=False)
    implicit_reward: ImplicitReward | None = field(default=None, init=False)
    """Of practice, from its beginning on."""
    entropy_bonus: EntropyBonus | None = field(default=None, init=False)
    replay: Replay | None = field(default=None, init=False)
    holding: Holding | None = field(default=None, init=False)
    gating: Gating | None = field(default=None, init=False)
    alarm: Alarm | None = field(default=None, init=False)
    collapse: CollapseWatch = field(init=False)
    """What the signs of a collapse are looked for by, in the steps that are done."""
    start_answers: list[list[Example]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.collapse = CollapseWatch(self.settings.collapse)

    def run(self) -> dict[str, Any]:
        self.prepare()
        base = measured(self, "base")
        self.warm_start()
        warm = measured(self, "warm_start") if self.settings.warm_start.steps else base
        learn_from_comparisons(self)
        preferred = measured(self, "preference") if self.settings.preferences.steps else warm
        for sentence in expected_of_feedback(self.settings, preferred["suites"]):
            self.reporter.say(sentence)
        self.practise()
        pages = {"base": base, "warm_start": warm, "preference": preferred}
        pages["practice"] = measured(self, "practice", unchanged=None if self.settings.steps else preferred)
        with suppress(Interrupted), self.interruption.whole():  # a signal that comes now comes too late
            save_asked(self.model, self.tokenizer, self.folder.path / "model", self.settings)
            save_adapters(self.model, self.tokenizer, self.folder.path, self.base, self.settings)
            if self.step_model:
                save_step_model(self.step_model, self.tokenizer, self.folder.path / "model")
            result = self.conclude(pages)
        return result

    def prepare(self) -> None:
        """Load tasks and model; a finished stage's checkpoint brings its weights."""
        settings, adaptation = self.settings, parse_adaptation(self.settings)
        if adaptation is not None:
            check_adaptation(adaptation, self.folder.path, self.data)
        self.materials = gather(settings, self.name, self.data)
        judge, train = self.outcome.judge, self.materials.train
        evaluated = [task for tasks in self.materials.suites.values() for task in tasks]
        if warning := self.outcome.prepare([*train, *evaluated]):
            self.reporter.say(warning)
        check_golds([*train, *evaluated], judge)
        self.place = decide(settings.machine, self.folder.read_json("environment.json") or {})
        self.feedback = Feedback.of(settings, self.outcome, self.place, has_steps_left=self._has_steps_left())
        self.base = settings.model
        model, self.tokenizer = load_model(self.base, device=self.place.device)
        check_step_model(settings, self.tokenizer)
        check_targets(model, settings.learn.lora)
        longest = max(settings.explore.max_new_tokens, settings.evaluation.max_new_tokens or 0, settings.evaluation.thought.longest)
        self.room_tokens = room_tokens(model, longest)
        prompts = render_prompts(self.tokenizer, train, self.room_tokens)
        shown = self.materials.demonstrations
        self.demonstrations = render_demonstrations(self.tokenizer, shown, room_tokens(model, 0))
        how: dict[str, Any] = {"n": settings.warm_start.writing, "seed": settings.seed, "max_tokens": room_tokens(model, 0)}
        self.demonstrations += writing_demonstrations(self.tokenizer, shown, settings.explore.self_made, **how)
        self.comparisons = render_comparisons(self.tokenizer, self.materials.comparisons, room_tokens(model, 0))
        taught = [*train, *shown, *(each.task for each in self.materials.comparisons)]
        self.probe = probe_for(settings.retention, self.tokenizer, room_tokens(model, 0), self.data)
        asked = [*evaluated, *(retention_questions(settings.retention, self.data) if settings.retention.replay.path else ())]
        self.replayed = pieces_of(settings.retention.replay, self.tokenizer, room_tokens(model, 0), self.data, asked)
        self.suites = render_suites(self.materials.suites, self.tokenizer, self.room_tokens, taught, judge)
        self.reporter.baselines({suite.name: suite.baselines for suite in self.suites}, self.materials.facts)
        facts = facts_of(self.place, settings.model) | {"verifiers_kept_from": self.outcome.closed}
        for sentence in self.folder.begin(resolved(settings), inputs_of(self.materials, self.replayed), **facts):
            self.reporter.say(sentence)
        if adaptation is not None:
            del model
            name = Path(str(settings.adaptation)).stem
            self.base = str(run_adaptation(adaptation, name, self.folder.path, self.data, self.reporter))
            model, _ = load_model(self.base, device=self.place.device)
        self.outcome.counts.clear()
        self.model = add_lora(model, settings.learn.lora, seed_for(settings.seed, "lora"))
        self.engine = engine_at(self.place, self.model, self.tokenizer, settings.machine, settings.engine)
        for sentence in advice(settings, len(prompts), self.demonstrations, self.engine.text_of):
            self.reporter.say(sentence)
        labelled, items = without_labelled(list(zip(train, prompts, strict=True)), settings.labelled, {task.key for task in shown})
        render, room = partial(render_prompt, self.tokenizer), room_tokens(model, settings.explore.max_new_tokens)
        self.exploring = Exploring(settings, items, self.engine, self.feedback.counts, self.folder, render, room)
        self.exploring.self_making = self_making_for(settings, self.engine, judge, self.model, self.tokenizer, train, evaluated)
        self.exploring.self_teaching = self_teaching_for(settings, self.engine, self.model, self.place, room, self.feedback.own_answers)
        self.exploring.believing = believing_for(settings, self.feedback.agreement, labelled, self.engine, judge, self.folder)

    # ------------------------------------------------------------------ stages

    def known_row(self, probe: Probe) -> dict[str, Any]:
        """The numbers of what the model as it is now knows of the probe."""
        return known(self, probe)["row"]

    def warm_start(self) -> None:
        """Imitate the demonstrations."""
        imitate_demonstrations(self)

    def practise(self) -> None:
        """Explore, judge, learn, for as many steps as were asked for."""
        if not self.settings.steps:
            return
        judge, begin = self.feedback.judge(partial(random_rate, self.folder)), self.feedback.begin
        learner = self.open_practice()
        if self.holding and (self.gating or self.alarm) and not self.folder.checkpoints("step-"):
            self.holding.hold(0)
        stage = Stage(
            phase="practice",
            kind="step-",
            order=0,
            total=self.settings.steps,
            every=self.settings.checkpoint_every,
            saves_last=True,
            prepare=lambda step: self.exploring.attempts_of(step, judge, begin),
            update=lambda step, judged: self.learn(step, judged, learner),
            is_over=self._is_over,
        )
        self.train(stage, learner, self.exploring.ledger)

    def open_practice(self) -> Learner:
        """Make practice's learner and all parts beside it, from the model as it is now."""
        learner = self.practice_learner()
        self.add_models()
        self.holding = holding_of(self, learner)
        self.start_answers = start_answers(self)
        self.replay = replay_for(self.settings, self.replayed, learner)
        self.gating = gating_for(self, learner)
        self.alarm = alarm_for(self)
        return learner

    def train(self, stage: Stage, learner: Learner, ledger: Ledger | None = None) -> None:
        """Take the last checkpoint of the stage, if there is one, and make the steps that are left; `ledger` keeps what none holds."""
        found, done = self.folder.checkpoints(stage.kind), 0
        if found:
            done = load_checkpoint(found[-1], self.model, learner, self.beside)["step"]
            self.engine.refresh(done)
            self.folder.prune(stage.kind, keep=self.settings.keep_checkpoints, spare=spared(self))  # a kill between two removals
        if lacking := self.folder.cut_after(stage.phase, done):
            self.reporter.say(lacking)
        if done < stage.total and not stage.is_over():  # numbers of a model that is about to be made anew
            (self.folder.path / "evaluation" / f"{stage.phase}.json").unlink(missing_ok=True)
        kept = [step for step in ledger.steps() if step > done] if ledger else []
        if done or kept:
            again = f"; the attempts of steps {kept[0]} to {kept[-1]} are kept" if kept else ""
            place = found[-1] if found else "no checkpoint yet"
            self.reporter.say(f"{stage.name}: going on from step {done} of {stage.total} ({place}){again}")

        def save(done: int) -> None:
            if not self.holding or self.holding.step != done:  # what is held is there already
                self.save_checkpoint(f"{stage.kind}{done:05d}", learner, {"order": stage.order + done, "step": done})
            if ledger:
                ledger.forget(read_progress(self.folder.checkpoints(stage.kind)[0])["step"])

        stage.train(done, save, self.reporter, self.interruption)

    def _has_steps_left(self) -> bool:
        """Whether practice has steps that neither a checkpoint nor the ledger holds."""
        found = self.folder.checkpoints("step-")
        done = read_progress(found[-1])["step"] if found else 0
        kept = Ledger(self.folder.path / "ledger").steps()
        return not self._is_over() and any(step not in kept for step in range(done + 1, self.settings.steps + 1))

    def _is_over(self) -> bool:
        """Whether the steps that are done have sampled as many tokens as practice may, or ended in what is a reason to stop."""
        is_closed = self.gating is not None and self.gating.is_over
        return is_closed or self._is_enough(self.steps_so_far())

    def _ends_with(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Whether `step` is the last one, by what it showed, which is not logged yet."""
        return step == self.settings.steps or self._is_enough([*self.steps_so_far(), {**metrics, "step": step}])

    def _is_enough(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these steps have sampled all tokens that practice may, or show a collapse that ends it."""
        budget, collapse = self.settings.budget_tokens, self.settings.collapse
        is_spent = budget is not None and sum(row["sampled_tokens"] for row in rows) >= budget
        return is_spent or (collapse.ends_practice and self.collapse.first(rows) is not None)

    def steps_so_far(self) -> list[dict[str, Any]]:
        """The metrics of practice's steps so far."""
        return [row for row in self.folder.log_rows("metrics.jsonl") if row["phase"] == "practice"]

    def learn(self, step: int, judged: Judged, learner: Learner) -> None:
        """Learn from judged attempts, and keep what was seen."""
        own_tokens = sum(attempt.num_own_tokens for group in judged.groups for attempt in group.attempts)
        tokens = judged.counts.get("sampled_tokens", own_tokens)  # attempts of a search share beginnings
        explore_seconds = judged.seconds["explore_seconds"]
        timings = {**judged.seconds, "tokens_per_second": tokens / explore_seconds if explore_seconds > 0 else 0.0}  # clocks may stand
        timings |= {"from_ledger": 1} if judged.is_kept else {}
        start = time.perf_counter()
        rows, metrics = self._updated(step, judged, learner)
        timings["learn_seconds"] = time.perf_counter() - start
        self.folder.write_attempts(step, rows)
        metrics |= self._seen(judged) | {"sampled_tokens": tokens} | self.exploring.keep(step, judged)
        metrics |= self.gating.look(step, is_last=self._ends_with(step, metrics)) if self.gating else {}
        self.log("practice", step, metrics, timings)
        self._guard(step)

    def _updated(self, step: int, judged: Judged, learner: Learner) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Update the policy, and what learns beside it; returns the attempts as they are kept, with their credit, and metrics."""
        how, explore = self.settings.learn, self.settings.explore
        self.engine.put_away()
        verdicts, foreseen = foresee(self.step_model, judged, explore)
        steered = steer(learner, self.entropy_bonus, self.settings, step, judged.groups[judged.given])
        added, told = added_credit(self.implicit_reward, judged, how)
        credited = shaped(judged.groups, verdicts, how.shapes_by, how.shaping_weight, self.model.get_input_embeddings().weight)
        credited, lengths = controlled(judged.groups, credited, how.length, explore.max_new_tokens)
        pull = self.replay.of_step(step) if self.replay else None
        metrics: dict[str, Any] = learn_from(learner, judged.groups, credited, how, step=step, added=added, replay=pull) | steered | lengths
        metrics |= {"replay_tokens": self.replay.tokens} if self.replay else {}
        if self.implicit_reward:
            metrics |= told | self.implicit_reward.update(judged.groups, judged.verdicts)
        if self.step_model:
            metrics |= foreseen | self.step_model.update(outlooks_of(judged.groups, judged.verdicts, self.settings.step_model.targets))
        self.engine.refresh(step)
        kinds: dict[str, Any] = {"with_tokens": explore.reuse, "with_parts": not self.feedback.is_plain, "made": judged.made}
        return attempt_rows(step, judged.groups, verdicts, how, credited=credited, added=added, **kinds), metrics

    def _seen(self, judged: Judged) -> dict[str, Any]:
        """What exploration and feedback showed at the tasks that the step was given, and what was counted."""
        groups, verdicts = judged.groups[judged.given], judged.verdicts[judged.given]
        how: dict[str, Any] = {"turn_discount": self.settings.learn.turn_discount, "with_parts": not self.feedback.is_plain}
        seen = observed(groups, verdicts, first_half(self.settings.explore), **how) | dict(judged.counts)
        if self.settings.feedback == "self_training":  # whose scores are no share of right attempts
            seen = {name: value for name, value in seen.items() if not name.startswith("pass_at_")} | {"score": None, "mean_reward": None}
        return seen | (refined(groups, verdicts, self.settings.explore.refine) if self.settings.explore.turns > 1 else {})

    def _guard(self, step: int) -> None:
        """Say what the alarm sees, and hold the model or fall back; behind the log, which a checkpoint has to follow."""
        if (collapse := self.collapse.first(self.steps_so_far())) and collapse.step == step:
            self.reporter.say(collapse.words)
        for guard in (self.gating, self.alarm):
            if guard is not None:
                guard.act(step)

    # ------------------------------------------------------------------ parts

    def warm_start_learner(self) -> Learner:
        """The learner of the warm start."""
        return warm_start_learner(self.model, self.settings, self.place.dtype)

    def preference_learner(self) -> Learner:
        """The learner of compared answers, which are compared with the model as it is now."""
        return preference_learner(self.model, self.settings, self.place.dtype)

    def practice_learner(self) -> Learner:
        """The learner of practice, anchored to the model as it is now."""
        return practice_learner(self.model, self.settings, self.place.dtype)

    @property
    def beside(self) -> dict[str, Stateful]:
        """What learns, changes or remembers beside the policy, by its letter in checkpoints."""
        parts = {"s": self.step_model, "i": self.implicit_reward, "e": self.entropy_bonus, "c": self.exploring.curriculum}
        return {letter: part for letter, part in (parts | {"g": self.gating, "w": self.alarm}).items() if part}

    def add_models(self) -> None:
        """Have steps and tokens valued by models, entropy by its coefficient and tasks by success, as far as the settings want it."""
        self.implicit_reward = implicit_reward_for(self.model, self.settings, self.place.dtype)
        self.entropy_bonus = entropy_bonus_for(self.settings)
        self.step_model = step_model_for(self.model, self.settings, self.place.dtype)
        self.exploring.by_step_model = value_by(self.step_model) if self.step_model else None
        self.exploring.curriculum = curriculum_for(self.settings, self.exploring.items)

    def save_checkpoint(self, name: str, learner: Learner | None, progress: Mapping[str, int]) -> None:
        options: dict[str, Any] = {"beside": self.beside, "keep": self.settings.keep_checkpoints, "spare": spared(self)}
        save_checkpoint(self.folder, name, self.model, self.tokenizer, learner, progress, settings=self.settings, **options)

    def log(self, phase: str, step: int, metrics: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        """Keep what a step showed, and tell it."""
        self.folder.append("metrics.jsonl", {"phase": phase, "step": step, **metrics})
        self.folder.append("timings.jsonl", {"phase": phase, "step": step, **{k: round(v, 3) for k, v in timings.items()}})
        self.reporter.step(phase, step, metrics, timings)

    def _feedback_counts(self) -> dict[str, int]:
        """What happened in feedback over the whole run, resumed or not: read from what the stages wrote."""
        pages = [self.folder.read_json(f"evaluation/{path.name}") for path in sorted((self.folder.path / "evaluation").glob("*.json"))]
        rows = [*(page.get("feedback_counts", {}) for page in pages), *self.folder.log_rows("metrics.jsonl")]
        return {name: sum(row.get(name, 0) for row in rows) for name in self.feedback.counts()}

    def conclude(self, pages: Mapping[str, Page]) -> dict[str, Any]:
        """Write the model's card, `result.json` and the report."""
        result = result_of(self.name, self.settings, pages, self.materials.facts, self._feedback_counts(), self.steps_so_far())
        if collapse := self.collapse.first(self.steps_so_far()):
            result["collapse"] = asdict(collapse) | {"words": collapse.words, "action": self.settings.collapse.action}
        if self.gating:
            result["gate"] = story_of(self.gating.gate, self.steps_so_far())
        if self.start_answers:
            result["divergence"] = moved_from_start(self, self.start_answers)
        evaluated = [task for tasks in self.materials.suites.values() for task in tasks]
        write_cards(self.folder.path, self.settings, result, evaluated, self.tokenizer)
        self.folder.write_json("result.json", result)
        write_report(report_folders(self.folder.path), self.folder.path / "report.html")
        self.reporter.concluded(result, self.folder.path)
        return result
