"""The latent-knowledge suite (`etude evaluate MODEL --suite latent-knowledge`): see `etude.evaluation.latent_knowledge`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from etude.console.reporter import Reporter
from etude.decoding.decode import decode
from etude.decoding.logit_lens import head_copy, logprobs_by_layer
from etude.decoding.methods import METHODS
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import GREEDY
from etude.errors import UserError, at_least, unknown
from etude.evaluation.latent_knowledge import QuestionFacts, gap_closed, measure_gap
from etude.evaluation.statistics import paired_test
from etude.randomness import seed_for
from etude.rollouts.order import visits
from etude.rollouts.prompts import render_prompts
from etude.suites.harness import Subject, SuiteDefinition
from etude.tasks.actions import add_instruction
from etude.tasks.aliases import aliases_of
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task, with_system
from etude.tasks.verifiers import VERIFIERS

_NAMES = 5
"""Maximum number of scored names of a correct answer."""

_KEYS = "knows-says"
"""Key of the samples; another word would sample other answers."""


@dataclass(frozen=True)
class LatentKnowledge:
    """Settings of the latent-knowledge suite: questions with correct and wrong answers."""

    path: list[str] = field(default_factory=list)
    """Files of questions; a correct answer may have several names (the verifier `aliases`)."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, answer) to those of the files."""
    wrong: str = "wrong"
    """Column with a wrong answer, or a list of them."""
    n: int | None = None
    """Number of questions, chosen by seed; null = all."""
    system: str | None = None
    """System message before every question."""
    instruction: str | None = None
    """Text after every question, such as the format of the answer."""
    max_new_tokens: int = 24
    """Longest answer in tokens."""
    decoding: ReliableDecoding = field(default_factory=lambda: ReliableDecoding(k=8))
    """Its `k` and `sampling` are those of the samples."""
    methods: list[str] = field(default_factory=list)
    """Decoding methods to measure, too."""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        at_least("max_new_tokens", self.max_new_tokens, 1)
        if self.n is not None:
            at_least("n", self.n, 2)
        for name in self.methods:
            if name not in METHODS:
                raise unknown("name in methods", name, METHODS)


def _measure(suite: LatentKnowledge, tasks: Sequence[Task], subject: Subject, _: str) -> dict[str, Any]:
    tokenizer, reporter, room = subject.tokenizer, subject.reporter, subject.room(suite.max_new_tokens)
    prompts = render_prompts(tokenizer, tasks, room)
    leads = _leading(subject.model, tokenizer, tasks, prompts, suite.wrong, reporter, subject.place.dtype)
    engine = subject.engine()
    said = _said(engine, tasks, prompts, suite)
    facts = [QuestionFacts(own, other, sum(right), greedy) for (own, other), (greedy, right, _) in zip(leads, said, strict=True)]
    row = measure_gap(facts, suite.decoding.k)
    reporter.say(line(row))
    methods = []
    for name in suite.methods:
        how = replace(suite.decoding, method=name)
        asking: dict[str, Any] = {"max_new_tokens": suite.max_new_tokens, "room_tokens": room, "names": (suite.seed, _KEYS)}
        found = decode(engine, list(zip(tasks, prompts, strict=True)), how, **asking, logprobs=subject.logprobs)
        methods.append(_method_row(name, [each.answer.text for each in found], tasks, facts, row))
        reporter.say(method_line(methods[-1]))
    items = [
        {
            "question": task.question,
            "answer": task.answer,
            "likelihood": each.leads[-1],
            "leads_from": each.leads_from,
            "right_samples": each.right_samples,
            "greedy": each.greedy,
            "text": text,
        }
        for task, each, (_, _, text) in zip(tasks, facts, said, strict=True)
    ]
    return {"row": row, "methods": methods, "items": items}


def questions(suite: LatentKnowledge, data: Path | None) -> list[Task]:
    """Load the suite's questions, each with its instruction.

    Raises UserError without files, for a question without a correct or a wrong answer, and for fewer than two questions.
    """
    if not suite.path:
        raise UserError("there is nothing to ask: set --path to one or more files of questions")
    source = TaskSource(path=suite.path, columns=suite.columns, verifier="aliases")
    tasks = load_tasks(source, split="test", n=suite.n, seed=suite.seed, data=data)
    for task in tasks:
        if task.answer is None:
            raise UserError(f"{task.origin} has no answer: give the right one, or leave the question out")
        if not _wrong(task, suite.wrong):
            held = ", ".join(map(str, task.metadata))
            raise UserError(f"{task.origin} has no wrong answer in the column {suite.wrong!r} (wrong); it has {held}: name the column")
    if len(tasks) < 2:
        raise UserError(f"{', '.join(suite.path)} gave {len(tasks)} question: give two, since each is also asked for the other's answer")
    return add_instruction(with_system(tasks, suite.system), suite.instruction or "")


def _wrong(task: Task, column: str) -> list[str]:
    value = task.metadata.get(column)
    return [str(each) for each in (value if isinstance(value, list) else [value]) if each is not None and str(each).strip()]


def _leading(
    model: Any,
    tokenizer: Any,
    tasks: Sequence[Task],
    prompts: Sequence[tuple[int, ...]],
    wrong: str,
    reporter: Reporter,
    dtype: torch.dtype = torch.float32,
) -> list[tuple[tuple[bool, ...], tuple[bool, ...]]]:
    """Determine for each question after which layers its correct answer leads, and after which the next question's answer does.

    `dtype` is the precision of the head after all layers but the last.
    """
    head = head_copy(model, dtype)
    names = [aliases_of(task)[:_NAMES] for task in tasks]
    found = []
    for place in reporter.steps("reading layers", range(len(tasks))):
        kinds = (names[place], _wrong(tasks[place], wrong), names[(place + 1) % len(tasks)])
        values = iter(_a_byte(model, tokenizer, prompts[place], [text for texts in kinds for text in texts], head))
        right, others, elsewhere = ([max(layer) for layer in zip(*(next(values) for _ in texts), strict=True)] for texts in kinds)
        leads, its_leads = (tuple(one > its for one, its in zip(own, others, strict=True)) for own in (right, elsewhere))
        found.append((leads, its_leads))
    return found


def _a_byte(model: Any, tokenizer: Any, prompt: tuple[int, ...], texts: Sequence[str], head: torch.nn.Linear | None) -> list[list[float]]:
    """Return the log-prob per byte of each answer after each layer."""
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    for text, own in zip(texts, ids, strict=True):
        if not own:
            raise UserError(f"the tokenizer makes nothing of the answer {text[:80]!r}: mend it, or leave the question out")
    by_layer = logprobs_by_layer(model, prompt, ids, head)
    return [[value / len(text.encode()) for value in own] for text, own in zip(texts, by_layer, strict=True)]


def _said(
    engine: PrefixEngine, tasks: Sequence[Task], prompts: Sequence[tuple[int, ...]], suite: LatentKnowledge
) -> list[tuple[bool, list[bool], str]]:
    """Return whether the greedy answer and each sample are correct, and the text of the greedy answer."""
    greedy = engine.generate(prompts, max_new_tokens=suite.max_new_tokens, sampling=GREEDY)
    numbers = range(suite.decoding.k)
    named = [(task.key, [again] if again else []) for task, again in zip(tasks, visits(task.key for task in tasks), strict=True)]
    keys = [
        [seed_for(suite.seed, _KEYS, "sample", number, key, *again) for number in numbers] for key, again in named
    ]  # the keys of a sample pool
    samples = engine.generate(prompts, max_new_tokens=suite.max_new_tokens, sampling=suite.decoding.sampling, keys=keys)
    found = []
    for task, (first,), sampled in zip(tasks, greedy, samples, strict=True):
        found.append((_is_right(first.text, task), [_is_right(each.text, task) for each in sampled], first.text))
    return found


def _is_right(text: str | None, task: Task) -> bool:
    return text is not None and VERIFIERS[task.verifier](text, task).is_right


def _method_row(
    name: str, texts: Sequence[str | None], tasks: Sequence[Task], facts: Sequence[QuestionFacts], row: dict[str, Any]
) -> dict[str, Any]:
    right = [_is_right(text, task) for text, task in zip(texts, tasks, strict=True)]
    test = paired_test([each.greedy for each in facts], right)
    accuracy = sum(right) / len(right)
    gains = {"gain": test.difference, "gain_low": test.difference_low, "gain_high": test.difference_high}
    return {"method": name, "accuracy": accuracy, **gains, "closed": gap_closed(accuracy, row)}


def line(row: Mapping[str, Any]) -> str:
    """Format the row as a line."""
    names = {"likelihood": "likeliest", "chance": "of another question", "pass_at_k": f"in {row['k']} samples", "greedy": "said at once"}
    shares = [f"{said} {row[name]:.1%} [{row[f'{name}_low']:.1%}, {row[f'{name}_high']:.1%}]" for name, said in names.items()]
    layers, first = len(row["leads_after"]) - 1, row["leads_from"]
    leading = (
        "not leading more often than these at the end"
        if first is None
        else f"leading more often than these from layer {first} of {layers} on"
    )
    return (
        f"right answers: {', '.join(shares)}; in a sample and not said at once {row['unsaid']:.1%}; {leading}, "
        f"lost on the way {row['lost']:.1%} (of another question {row['lost_chance']:.1%})  n = {row['n']:,}"
    )


def method_line(row: Mapping[str, Any]) -> str:
    closes = "" if row["closed"] is None else f", {row['closed']:.0%} of the gap to the samples"
    gain = [100 * row[f"gain{end}"] for end in ("", "_low", "_high")]
    return f"{row['method']:<26} {row['accuracy']:.1%}, {gain[0]:+.1f} points [{gain[1]:+.1f}, {gain[2]:+.1f}] on greedy{closes}"


LATENT_KNOWLEDGE = SuiteDefinition(
    "latent-knowledge",
    "latent-knowledge",
    LatentKnowledge,
    lambda suite, request: questions(suite, request.data),
    _measure,
    short={"k": "decoding.k"},
)
"""Returns `row` (`etude.evaluation.latent_knowledge.measure_gap`), `methods`, a row for each, and `items`, one for each question."""
