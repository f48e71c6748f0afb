"""What any model knows and can do that practice might cost it: one suite, measured alike for all, as `etude evaluate MODEL --suite NAME`.

part          measured by                                                 number
choices       likelihood alone (`etude.evaluation.retention`)             accuracy of each file, and of all its questions together
text          likelihood alone                                            perplexity of each file
instructions  greedy answers, rules that a function checks                share followed
families      greedy answers to problems of reasoning-gym                 accuracy of each family

`choice_accuracy` is that of all questions of the files, or without them of those that ship. A model's folder may remember how a run asked
it; here it is asked plainly, so that two models' numbers compare. What ships is always measured; without the data folder it is all there is
of choices and text.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.console.reporter import Reporter, Silent
from etude.device.limits import within_limits
from etude.device.machine import Machine, decide, engine_at, room_tokens
from etude.engine.completion import Logprobs
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import at_least
from etude.evaluation.instructions import instructions, is_followed
from etude.evaluation.measure import Measurement, Suite, measure
from etude.evaluation.retention import OLD_KNOWLEDGE, make_probe, measure_retention
from etude.evaluation.rewards import is_item_right
from etude.evaluation.statistics import mean_interval, wilson_interval
from etude.models.load import describe, load_model
from etude.recipes.materials import with_system
from etude.rewards.outcome import Isolation, OutcomeFeedback
from etude.rollouts.prompts import render_prompts
from etude.settings.configuration import arguments_from, find_configuration, parse
from etude.suites.retention_probe import logprobs_of, read_text
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task

SHIPPED, ALL = "common knowledge", "all questions"
"""Names of the text and the questions that ship, and of all questions of the files together (without files, those that ship)."""

Row = dict[str, Any]
"""`part`, `name`, `n`, and a `value` with `low` and `high`: a share, or of a text its perplexity."""


@dataclass(frozen=True)
class RetentionSuite:
    """What is measured of what a model knew and could do before it practised."""

    choices: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Our names (question, choices, answer) to the files' columns."""
    n: int | None = None
    """Questions of each file, always the same ones; all unless given."""
    text: list[str] = field(default_factory=list)
    """Text files, or JSONL with a column `text`; each has a perplexity of its own."""
    text_tokens: int = 8192
    """Tokens of each text at most."""
    window_tokens: int = 256
    """Length of the pieces that a text is read in, each without the ones before."""
    instructions: int = 110
    """Prompts with a rule that can be checked; 0 leaves them out."""
    families: list[str] = field(default_factory=list)
    """Families of reasoning-gym: name none that is practised."""
    family_parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of a family, by its name; others are as they come."""
    family_verifier: str | None = None
    """What scores their answers, such as `numeric`, which finds a number in prose; their own scorers, which want it alone, unless given."""
    family_n: int = 40
    """Problems of each."""
    max_new_tokens: int = 96
    """Longest answer to an instruction or a problem."""
    system: str | None = None
    """System message before instructions and problems; none leaves it to the chat template, "" is an empty one."""
    timeout_seconds: float = 5.0
    isolate_verifiers: Isolation = True
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("n", self.n, 1)
        for name, least in {"text_tokens": 2, "window_tokens": 3, "instructions": 0, "family_n": 1, "max_new_tokens": 1}.items():
            at_least(name, getattr(self, name), least)
        instructions(self.instructions)


def parse_retention(name: str, overrides: Sequence[str]) -> RetentionSuite:
    """The suite of a YAML file, or one that ships, with `--key value` overrides."""
    return parse(RetentionSuite, find_configuration("suite", name), overrides)


def evaluate_retention(
    model: str,
    suite: RetentionSuite | str = "retention",
    overrides: Mapping[str, Any] | None = None,
    *,
    data: Path | str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """`{"model", "weights", "choice_accuracy", "rows", "answers", "left_out"}` of any model.

    `rows` have `part`, `name`, `n`, `value`, `low`, `high` (95 %); `choice_accuracy` is the row of all questions; `answers` are those to
    instructions and problems; `left_out` says what was not measured, if anything.

    >>> evaluate_suite("runs/first/model", data="sets")  # doctest: +SKIP
    """
    if not isinstance(suite, RetentionSuite):
        suite = parse_retention(suite, arguments_from(overrides or {}))
    folder, reporter = Path(data) if data else None, reporter or Silent()
    left_out = _left_out(suite, folder)
    if left_out:
        reporter.say(left_out)
    place = decide(suite.machine)
    loaded, tokenizer = load_model(model, device=place.device)
    logprobs = logprobs_of(loaded, place, suite.machine)
    rows: list[Row] = []
    answers: dict[str, Any] = {}

    def found(new: Sequence[Row]) -> None:
        for row in new:
            reporter.say(_line(row))
        rows.extend(new)

    with within_limits(suite.machine):
        found(_choices(suite, tokenizer, logprobs, room_tokens(loaded, 0), folder))
        found(_texts(suite, tokenizer, logprobs, room_tokens(loaded, 0), folder))
        engine, room = engine_at(place, loaded, tokenizer, suite.machine), room_tokens(loaded, suite.max_new_tokens)
        for part in (_instructions, _families):
            new, said = part(suite, engine, lambda tasks: render_prompts(tokenizer, with_system(tasks, suite.system), room))
            found(new)
            answers |= said
    overall = [row for row in rows if row["part"] == "choices"][-1]
    return {
        "model": model,
        "weights": describe(model),
        "choice_accuracy": overall,
        "rows": rows,
        "answers": answers,
        "left_out": left_out,
    }


def _left_out(suite: RetentionSuite, data: Path | None) -> str | None:
    files = [*suite.choices, *suite.text] if data is None else []
    missing = [path for path in files if not Path(path).is_file()]
    return f"without --data DIR, the folder of data sets, these were left out: {', '.join(missing)}" if missing else None


def _is_there(path: str, data: Path | None) -> bool:
    """Whether a file is to be read: without a data folder those that are missing are left out, with one they are a mistake."""
    return data is not None or Path(path).is_file()


# ---------------------------------------------------------------------- by likelihood


def _choices(suite: RetentionSuite, tokenizer: Any, logprobs: Logprobs, room: int, data: Path | None) -> list[Row]:
    """A row for each file, what ships first; last all questions of the files together, or those that ship where there are none."""

    def bits_of(path: str, columns: dict[str, str], n: int | None) -> str:
        tasks = load_tasks(TaskSource(path=[path], columns=columns, verifier="choice"), split="retention", n=n, seed=0, data=data)
        probe = make_probe("", tasks, tokenizer, window_tokens=suite.window_tokens, text_tokens=0, room=room)
        return measure_retention(probe, logprobs)["right"]

    shipped = bits_of(str(OLD_KNOWLEDGE / "questions.jsonl"), {}, None)
    own = {path: bits_of(path, suite.columns, suite.n) for path in suite.choices if _is_there(path, data)}
    rows = [_share("choices", name, bits) for name, bits in {SHIPPED: shipped, **own}.items()]
    return [*rows, _share("choices", ALL, "".join(own.values()) or shipped)]


def _texts(suite: RetentionSuite, tokenizer: Any, logprobs: Logprobs, room: int, data: Path | None) -> list[Row]:
    """Perplexity of each text, its interval by the bootstrap over windows."""
    sizes = {"window_tokens": min(suite.window_tokens, room), "text_tokens": suite.text_tokens, "room": room}
    rows = []
    for path in (SHIPPED, *(path for path in suite.text if _is_there(path, data))):
        text = read_text("text", str(OLD_KNOWLEDGE / "text.txt") if path == SHIPPED else path, data)
        found = measure_retention(make_probe(text, [], tokenizer, **sizes), logprobs)
        low, high = map(math.exp, mean_interval(found["nats"]))
        row = {"n": found["row"]["text_tokens"], "value": found["row"]["perplexity"], "low": low, "high": high}
        rows.append({"part": "text", "name": path} | row)
    return rows


def _share(part: str, name: str, bits: Sequence[Any]) -> Row:
    """How many of 0s and 1s, as text or bools, are right."""
    right = sum(bit in ("1", True) for bit in bits)
    low, high = wilson_interval(right, len(bits))
    return {"part": part, "name": name, "n": len(bits), "value": right / len(bits), "low": low, "high": high}


# ---------------------------------------------------------------------- by greedy answers


Prompts = Callable[[Sequence[Task]], list[tuple[int, ...]]]


def _instructions(suite: RetentionSuite, engine: TransformersEngine, prompts: Prompts) -> tuple[list[Row], dict[str, Any]]:
    asked = instructions(suite.instructions)
    if not asked:
        return [], {}
    found = engine.generate(prompts([Task(each.prompt) for each in asked]), max_new_tokens=suite.max_new_tokens, sampling=GREEDY)
    texts = [completions[0].text for completions in found]
    bits = [is_followed(text, each) for text, each in zip(texts, asked, strict=True)]
    said = [
        {"prompt": each.prompt, "rule": each.rule, "text": text, "is_followed": bit}
        for each, text, bit in zip(asked, texts, bits, strict=True)
    ]
    return [_share("instructions", "own prompts, rules checked", bits)], {"instructions": said}


def _families(suite: RetentionSuite, engine: TransformersEngine, prompts: Prompts) -> tuple[list[Row], dict[str, Any]]:
    rows, said = [], {}
    how = Measurement(suite.max_new_tokens, pass_n=0, num_samples=0, sampling=Sampling(), seed=0)
    with OutcomeFeedback(suite.timeout_seconds, isolate=suite.isolate_verifiers) as outcome:
        for family in suite.families:
            source = TaskSource(family=family, parameters=suite.family_parameters.get(family, {}), verifier=suite.family_verifier)
            tasks = load_tasks(source, split="retention", n=suite.family_n, seed=0)
            page = measure(engine, Suite(family, tasks, prompts(tasks), {}), how, outcome.judge)
            rows.append(_share("families", family, list(map(is_item_right, page["items"]))))
            said[family] = page["items"]
    return rows, said


def _line(row: Row) -> str:
    """A row as a line of the table."""
    number = "{value:6.2f} [{low:.2f}, {high:.2f}]" if row["part"] == "text" else "{value:6.1%} [{low:.1%}, {high:.1%}]"
    unit = "tokens" if row["part"] == "text" else ""
    return f"{row['part']:<13} {row['name']:<40} {number.format(**row)}  n = {row['n']:,} {unit}".rstrip()
