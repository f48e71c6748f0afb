"""Adaptation: continued pre-training of a model on a domain's text, before it practises there.

    select text → measure the initial model → train, stage by stage → measure → report

Every part leaves a file or a checkpoint. A resumed run skips what is there, and continues from the last checkpoint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from etude.cards.usage import PromptExample
from etude.console.reporter import Reporter, Silent
from etude.device.machine import Device, device_facts, max_prompt_tokens, resolve_device
from etude.engine.build import engine_at
from etude.errors import UserError
from etude.evaluation.likelihood import LikelihoodQuestion, question_from_task
from etude.evaluation.report import write_report
from etude.evaluation.retention import leading_tokens, token_ids
from etude.files import read_jsonl
from etude.fingerprints import fingerprint_of
from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.documents import list_files, read_documents
from etude.knowledge.grading import DocumentGrader, build_messages
from etude.knowledge.mixture import Piece, passes, schedule, windows
from etude.knowledge.selection import check_packages, select
from etude.learn.example import Example, demonstration
from etude.learn.learner import Learner, Stream
from etude.learn.losses import negative_log_likelihood
from etude.models.adapters import add_lora, check_targets
from etude.models.load import describe_weights, load_model
from etude.models.save import save_model
from etude.randomness import seed_for
from etude.recipes.adapt_card import adapt_card
from etude.recipes.adapt_settings import REPLAY, TASKS, TEXT, AdaptSettings, adapt_defaults, parse_adapt
from etude.recipes.calls import configuration_for, keywords_with, reporter_for, run_folder, without_progress_bars
from etude.recipes.no_effect_adapt import without_effect
from etude.recipes.objects import Objects
from etude.recipes.passages import check_writer, write_passages
from etude.recipes.perplexity import Perplexity
from etude.recipes.results import RunResult
from etude.rollouts.prompts import render_answer, without_control
from etude.settings.arguments import arguments_from
from etude.settings.configuration import to_plain_values
from etude.suites.domain import Questions, greedy_answers_by, load_questions, load_texts, measure_domain
from etude.suites.domain_changes import format_change, paired_changes
from etude.suites.retention_probe import logprobs_of
from etude.tasks.files import candidate_paths
from etude.tasks.sources import load_tasks
from etude.tasks.task import Task, canonical_words
from etude.training.chat_model import check_chat_model, open_chat_model
from etude.training.given import Given
from etude.training.run import Run, open_run
from etude.training.saving import save_adapters

_TOKENS_A_WORD = 1.3
"""Tokens a word of English for usual tokenizers, to estimate how much text is enough."""


@without_progress_bars()
def adapt(
    recipe: AdaptSettings | str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    model: Any = None,
    run: Path | str | None = None,
    data: Path | str | None = None,
    resume: bool = False,
    verbose: bool | None = None,
    reporter: Reporter | None = None,
    **more: Any,
) -> RunResult:
    """Run an adaptation and return what `result.json` holds.

    >>> adapt("anatomy", model="smollm2-135m", study={"tokens": 100_000}, data="sets")  # doctest: +SKIP

    `recipe` is the name of a configuration that ships, a YAML file or `AdaptSettings`. `model` is a name, a path or a hub id, or a loaded
    model with its tokenizer, (model, tokenizer), which the run does not change. Other settings are keywords, or a mapping of dotted or
    nested names to plain values. `run` is the run folder; without it the first free one of `runs/NAME`, `runs/NAME-2`, ... `data` is the
    folder of data sets. `verbose` prints progress; without it, in a terminal or a notebook only. Raises UserError for wrong settings or
    data.
    """
    reporter = reporter or reporter_for(verbose)
    name = "adapt" if isinstance(recipe, AdaptSettings) else configuration_for("adapt", recipe).stem
    objects = Objects(Path(run) if run else run_folder(name, resume=resume), keywords_with(settings, more))
    if model is not None:
        objects.take_model(model)
    if not isinstance(recipe, AdaptSettings):
        recipe = parse_adapt(configuration_for("adapt", recipe), arguments_from(objects.settings, AdaptSettings))
    elif objects.settings:
        raise UserError("AdaptSettings are used as they are: change them with dataclasses.replace, or name a recipe")
    how: dict[str, Any] = {"run": objects.run, "data": data, "resume": resume, "reporter": reporter}
    return RunResult(adapt_named(recipe, name, **how, given=objects.given), objects.run)


def adapt_named(
    settings: AdaptSettings,
    name: str,
    *,
    run: Path | str,
    data: Path | str | None,
    resume: bool,
    reporter: Reporter | None,
    given: Given | None = None,
) -> dict[str, Any]:
    """Run `adapt` with resolved settings; `name` is the recipe's name in the results."""
    with open_run(Path(run), settings, defaults=adapt_defaults(), resume=resume) as opened:
        if opened.result:
            return opened.result
        with (given or Given()).written(opened.folder):
            return Adaptation(settings, name, opened.folder, Path(data) if data else None, reporter or Silent(), opened.interruption).run()


@dataclass
class Adaptation(Run):
    """One run in progress."""

    settings: AdaptSettings
    selected: dict[str, Any] = field(init=False)
    questions: dict[str, str] = field(init=False)
    """All measured questions, by name."""
    pieces: dict[str, list[Example]] = field(init=False)
    """Training examples by source."""

    def run(self) -> dict[str, Any]:
        self.prepare()
        self.select()
        self.model = add_lora(self.model, self.settings.lora, seed_for(self.settings.seed, "lora"))
        before = self.measured("base")
        self.read()
        self.study()
        after = self.measured("adapted")
        with self.interruption.whole():
            save_model(self.model, self.tokenizer, self.folder.path / "model")
            save_adapters(self.model, self.tokenizer, self.folder.path, self.settings.model)
            return self.conclude(before, after)

    def prepare(self) -> None:
        """Load the model and all measured questions, so that a mistake there leaves no folder."""
        settings = self.settings
        self.place = resolve_device(settings.machine, self.folder.read_json("environment.json") or {})
        self.asked, self.texts, self.tasks = gather_asked(settings, self.data_folder)
        self.model, self.tokenizer = load_model(settings.model, device=self.place.device)
        check_targets(self.model, settings.lora)
        end_of_text(self.tokenizer)
        self.room = max_prompt_tokens(self.model, 0)
        if settings.writer.how == "attempts":
            max_prompt_tokens(self.model, settings.writer.max_new_tokens)
        check_models(settings, self.tasks, self.place, self.folder.path)
        inputs = {f"the questions of {part} {name}": fingerprint_of(map(_told, own)) for (part, name), own in self.asked.items()}
        inputs |= {f"the text {name}": fingerprint_of([text]) for name, text in self.texts}
        for sentence in self.folder.begin(to_plain_values(settings), inputs, **device_facts(self.place, settings.model)):
            self.reporter.say(sentence)
        if unread := without_effect(settings):
            self.reporter.say(f"unused settings: {'; '.join(unread)}")

    # ------------------------------------------------------------------ text

    def select(self) -> None:
        """Select the text, without documents that hold a measured question. Raises UserError if no general text is left to replay."""
        settings = self.settings
        questions = self.questions = {
            f"{part} {name} {each.origin}": _bare(each.prompt) for (part, name), own in self.asked.items() for each in own
        }
        self._leave_out_what_is_asked()
        likely = partial(Perplexity, settings.model, self.place, settings.machine)
        scorer = likely if settings.selection.method == "perplexity" else None
        how: dict[str, Any] = {"count_tokens": self._count, "questions": questions, "seed": settings.seed, "data": self.data_folder}
        target = self.folder.path / "selection"
        if settings.grader.is_on and not (target / "selection.json").exists():
            graders = open_chat_model(settings.grader, self.place, settings.machine, build_messages("?"), settings.seed)
            how["grading"] = DocumentGrader(graders, settings.grader, target / "grades.jsonl")
        self.selected = select(settings.corpus, settings.domain, settings.selection, target, scorer=scorer, tell=self.reporter.say, **how)
        found, replayed = self.selected, self.selected["replay"]["tokens"]
        general = "" if settings.has_general else f"; general text: {replayed:,} tokens"
        self.reporter.say(
            f"text: {found['selected']['documents']:,} of {found['documents']:,} documents, {found['selected']['tokens']:,} tokens; "
            f"{sum(found['flaws'].values()):,} break a rule, {len(found['copies']):,} are copies, {len(found['leaks']):,} hold a question "
            f"of the suite{_graded(found.get('grades', {}), settings.grader.min_grade)}{general}"
        )

        if settings.study.replay_share and not settings.has_general and not replayed:
            raise UserError(
                "the selection left no general text to replay: name some with general.path, select less, or set study.replay_share 0"
            )

    def _leave_out_what_is_asked(self) -> None:
        """Remove the suite's questions from the tasks."""
        asked = {" ".join(canonical_words(question)) for question in self.questions.values()}
        own = [task for task in self.tasks if " ".join(canonical_words(_bare(question_from_task(task).prompt))) not in asked]
        if len(own) < len(self.tasks):
            self.reporter.say(f"tasks: {len(self.tasks) - len(own)} of {len(self.tasks)} are asked in the suite and were left out")
        if self.tasks and not own:
            raise UserError("all tasks are in the suite: name other tasks, or another split of the suite")
        self.tasks = own

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def read(self) -> None:
        """Make the training examples of every source."""
        settings, study = self.settings, self.settings.study
        folder = self.folder.path / "selection"
        texts = {TEXT: [row["text"] for row in read_jsonl(folder / "selected.jsonl")]}
        if settings.has_general:
            texts[REPLAY] = self._general() if study.replay_share else []
        else:
            texts[REPLAY] = [row["text"] for row in read_jsonl(folder / "replay.jsonl")]
        window, end = min(study.window_tokens, self.room - 1), end_of_text(self.tokenizer)
        if study.task_format == "passages" and self.tasks:
            engine = partial(engine_at, self.place, self.model, self.tokenizer, settings.machine)
            how: dict[str, Any] = {"place": self.place, "engine": engine, "room": self.room - settings.writer.max_new_tokens}
            texts[TASKS] = write_passages(settings, self.folder, self.tasks, self.questions, reporter=self.reporter, **how)
        self.pieces = {TASKS: [self._solved(task) for task in self.tasks]} if TASKS not in texts else {}
        for source, own in texts.items():
            plain = [without_control(self.tokenizer, text) for text in own]
            ids = [tuple(found) for found in self.tokenizer(plain, add_special_tokens=False)["input_ids"]] if own else []
            self.pieces[source] = [demonstration(before, after) for before, after in windows(ids, window, end)]
        called = {TEXT: "the selected text", TASKS: "the solved tasks", REPLAY: "the general text"}
        learned = {called[source]: ([each.prompt, each.completion] for each in own) for source, own in self.pieces.items()}
        self.folder.check_inputs({name: fingerprint_of(own) for name, own in learned.items()})

    def _general(self) -> list[str]:
        """Sample general text for one pass from ten times as much, so that a corpus without end may be named."""
        settings, found, words = self.settings, list[str](), 0
        wanted = settings.study.replay_share * settings.study.tokens / _TOKENS_A_WORD
        leaks = ContaminationCheck(self.questions, settings.selection.leak_share)
        left_out = 0
        for document in read_documents(settings.general, self.data_folder):
            if leaks.find_worst(canonical_words(document.text)):
                left_out += 1
            elif document.text:
                found.append(document.text)
                words += len(document.text.split())
            if words > 10 * wanted:
                break
        order = np.random.default_rng(seed_for(settings.seed, "general text")).permutation(len(found))
        upto = np.cumsum([len(found[place].split()) for place in order])
        chosen = sorted(order[: int(np.searchsorted(upto, wanted)) + 1])
        self.reporter.say(f"general text: {len(chosen):,} of {len(found):,} documents; {left_out:,} hold a question that is asked")
        return [found[place] for place in chosen]

    def _solved(self, task: Any) -> Example:
        """Make an example of a task as the suite asks it, with its correct answer as target."""
        asked = question_from_task(task)
        start, prompt = leading_tokens(self.tokenizer), token_ids(self.tokenizer, without_control(self.tokenizer, asked.prompt))
        answer = render_answer(self.tokenizer, without_control(self.tokenizer, f" {asked.choices[asked.right]}"))
        left = self.room - len(start) - len(answer)
        if left < 1:
            raise UserError(f"{task.origin} has an answer of {len(answer)} tokens; the model has room for {self.room} in all")
        return demonstration((*start, *prompt[-left:]), answer)

    # ------------------------------------------------------------------ study

    def study(self) -> None:
        """Train stage by stage."""
        sizes = {source: [len(piece.completion) for piece in own] for source, own in self.pieces.items()}
        stages = self.settings.study.stages()
        self.stages = []
        for number, stage in enumerate(stages):
            stage.check(f"stage {stage.name}", sizes)
            steps = schedule(sizes, stage, self.settings.study.tokens_per_step, seed_for(self.settings.seed, "study", number))
            self.stages.append({"stage": stage.name, "steps": len(steps), "passes": passes(steps, sizes)})
            self._study(number, stage.name, steps)

    def _study(self, number: int, phase: str, steps: Sequence[Sequence[Piece]]) -> None:
        study, ends_at = self.settings.study, (number + 1) * 10**6

        def make() -> Learner:
            rate = study.optimizer.learning_rate * (study.later_stage_lr_factor if number else 1.0)
            optimizer = replace(study.optimizer, learning_rate=rate).over(len(steps))
            sizes: dict[str, Any] = {"dtype": self.place.dtype, "batch_tokens": self.settings.machine.max_tokens_per_microbatch}
            streams = [Stream("imitate", negative_log_likelihood)]
            return Learner(self.model, optimizer, streams, **sizes, dropout_seed=seed_for(self.seed, "dropout", phase))

        def prepare(step: int) -> list[Example]:
            return [self.pieces[piece.source][piece.place] for piece in steps[step - 1]]

        def update(learner: Learner, examples: list[Example]) -> dict[str, float]:
            return learner.update(examples) | {"tokens": sum(len(example.completion) for example in examples)}

        how: dict[str, Any] = {"make": make, "prepare": prepare, "update": update}
        self.learn(phase, len(steps), kind=f"{phase}-", ends_at=ends_at, **how, page="adapted")

    def save_model(self, folder: Path) -> None:
        save_model(self.model, self.tokenizer, folder)

    # ------------------------------------------------------------------ numbers

    def measured(self, model: str) -> list[dict[str, Any]]:
        """Return the suite's rows of the current model; read them if they were measured before."""
        kept = self.folder.read_json(f"evaluation/{model}.json")
        if kept is not None:
            return kept["rows"]  # type: ignore[no-any-return]
        self.reporter.say(f"measuring {model} ...")
        logprobs = logprobs_of(self.model, self.place, self.settings.machine)
        answers = greedy_answers_by(partial(engine_at, self.place, self.model, self.tokenizer, self.settings.machine), self.room)
        rows = measure_domain(self.settings.suite, self.asked, self.texts, self.tokenizer, logprobs, answers, self.room, self.reporter)
        self.folder.write_json(f"evaluation/{model}.json", {"model": model, "rows": rows})
        return rows

    def conclude(self, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Write `result.json` and the report, and report the paired changes."""
        result: dict[str, Any] = {
            "recipe": self.name,
            "status": "finished",
            "seed": self.settings.seed,
            "weights": describe_weights(self.settings.model),
            "selection": {name: self.selected[name] for name in ("documents", "selected", "replay", "flaws")},
            "stages": self.stages,
            "before": list(before),
            "after": list(after),
            "changes": paired_changes(before, after),
        }
        example = PromptExample("QUESTION", max_new_tokens=100, template="base" if self.tokenizer.chat_template else "none")
        adapt_card(self.settings, result).write(self.folder.path, example)
        self.folder.write_json("result.json", result)
        write_report([self.folder.path], self.folder.path / "report.html")
        for change in result["changes"]:
            self.reporter.say(format_change(change))
        self.reporter.say(f"model: {self.folder.path / 'model'}   report: {self.folder.path / 'report.html'}")
        return result


def check_models(settings: AdaptSettings, tasks: Sequence[Task], place: Device, run: Path) -> None:
    """Raise UserError if a grader or writer is unavailable, as long as it has work to do."""
    if settings.grader.is_on and not (run / "selection" / "selection.json").exists():
        check_chat_model(settings.grader, place, settings.machine, build_messages("?"))
    if settings.study.task_format == "passages" and tasks:
        check_writer(settings, tasks, place, run)


def end_of_text(tokenizer: Any) -> int:
    """Return the token that ends a document. Raises UserError if the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise UserError("the tokenizer has no end-of-sequence token, so that documents have no end: set its eos_token")
    return int(tokenizer.eos_token_id)


def gather_asked(settings: AdaptSettings, data: Path | None) -> tuple[Questions, list[tuple[str, str]], list[Task]]:
    """Load the measured questions, the texts whose perplexity is measured, and the solved tasks.

    Raises UserError for what can't be read, and for a measured text that is also in the training text.
    """
    corpora = (settings.corpus, settings.domain, settings.general)
    read = {file.resolve() for corpus in corpora for _, file in list_files(corpus, data)}
    check_packages()  # only now, so that a wrong path is reported first
    asked, texts = load_questions(settings.suite, data), load_texts(settings.suite, data)
    for path in settings.suite.text:
        places = [place.resolve() for place in candidate_paths(path, data) if place.is_file()]
        if places and places[0] in read:
            raise UserError(f"suite.text {path} is read in training, so that its perplexity would say nothing: name another text")
    kinds = settings.tasks.kinds() if settings.study.needs_tasks else []
    tasks = [task for kind in kinds for task in load_tasks(kind, split="train", n=None, seed=settings.seed, data=data)]
    return asked, texts, tasks


def _graded(grades: Mapping[str, int], least: int) -> str:
    """Describe how many documents the grader left out."""
    below = sum(count for grade, count in grades.items() if grade != "none" and int(grade) < least)
    return f", {below:,} are graded below {least} and {grades.get('none', 0):,} not at all" if grades else ""


def _told(question: LikelihoodQuestion) -> tuple[Any, ...]:
    """Return a question without its origin."""
    return question.prompt, question.choices, question.right


def _bare(prompt: str) -> str:
    """Return a question without the words around it in a prompt."""
    return prompt.removeprefix("Question: ").removeprefix("Definition: ").removesuffix("\nAnswer:").removesuffix("\nTerm:")
