"""The retention suite: general knowledge and skills that a model may lose in practice, as `etude evaluate MODEL --suite retention`.

part          measured by                                                 number
choices       likelihood (`etude.evaluation.retention`)                   accuracy of each file, and of all its questions together
text          likelihood                                                  perplexity of each file
instructions  greedy answers, rules that a function checks                share followed
families      greedy answers to problems of reasoning-gym                 accuracy of each family

`choice_accuracy` is that of all questions of the files, or without files of the shipped ones. Prompts ignore the system message and
instruction in a model's folder, so that numbers of two models are comparable. The shipped data is always measured; without a data folder
there are no other choices and texts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.device.machine import Machine
from etude.engine.completion import Logprobs
from etude.engine.protocols import Engine
from etude.engine.sampling import GREEDY, Sampling
from etude.errors import at_least
from etude.evaluation.instructions import instructions, is_followed
from etude.evaluation.measure import Measurement, Suite, measure
from etude.evaluation.retention import make_probe, measure_retention
from etude.evaluation.rewards import is_item_right
from etude.evaluation.statistics import wilson_interval
from etude.rewards.verifier_reward import Isolation, VerifierReward
from etude.rollouts.prompts import render_prompts
from etude.suites.general_knowledge import ALL, SHIPPED, SHIPPED_QUESTIONS, perplexity_row, text_of
from etude.suites.harness import Request, Row, Subject, SuiteDefinition, report_rows
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task, with_system


@dataclass(frozen=True)
class RetentionSuite:
    """Settings of the retention suite."""

    choices: list[str] = field(default_factory=list)
    """Files of questions with choices."""
    columns: dict[str, str] = field(default_factory=dict)
    """Maps our column names (question, choices, answer) to those of the files."""
    n: int | None = None
    """Questions per file, always the same ones; null = all."""
    text: list[str] = field(default_factory=list)
    """Text files, or JSONL with a column `text`; each has a perplexity of its own."""
    text_tokens: int = 8192
    """Most tokens of each text."""
    window_tokens: int = 256
    """Length of a text's windows in tokens; each is read without the ones before it."""
    instructions: int = 110
    """Prompts with a rule that can be checked; 0 = none."""
    families: list[str] = field(default_factory=list)
    """Families of reasoning-gym; name none that the model practised on."""
    family_parameters: dict[str, Any] = field(default_factory=dict)
    """Parameters of a family, by its name; by default the family's own."""
    family_verifier: str | None = None
    """Verifier of their answers, such as `numeric`, which finds a number in prose; null = their own scorers, which accept only the number.
    """
    family_n: int = 40
    """Problems per family."""
    max_new_tokens: int = 96
    """Longest answer to an instruction or a problem, in tokens."""
    system: str | None = None
    """System message before instructions and problems; null = what the chat template does, "" = an empty one."""
    timeout_seconds: float = 5.0
    """Time limit of a verifier for one answer, in seconds."""
    isolate_verifiers: Isolation = True
    """Sandbox verifiers: true = as far as the kernel can; `required` = refuse to run if anything stays open; false = off."""
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.n is not None:
            at_least("n", self.n, 1)
        for name, least in {"text_tokens": 2, "window_tokens": 3, "instructions": 0, "family_n": 1, "max_new_tokens": 1}.items():
            at_least(name, getattr(self, name), least)
        instructions(self.instructions)


def _load(suite: RetentionSuite, request: Request) -> str | None:
    """Report and return what is omitted without a data folder."""
    files = [*suite.choices, *suite.text] if request.data is None else []
    missing = [path for path in files if not Path(path).is_file()]
    left_out = f"without --data DIR, the folder of data sets, these were left out: {', '.join(missing)}" if missing else None
    if left_out:
        request.reporter.say(left_out)
    return left_out


def _measure(suite: RetentionSuite, left_out: str | None, subject: Subject, _: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    rows = report_rows(_rows(suite, subject, answers), _line, subject.reporter)
    overall = [row for row in rows if row["part"] == "choices"][-1]
    return {"choice_accuracy": overall, "rows": rows, "answers": answers, "left_out": left_out}


def _rows(suite: RetentionSuite, subject: Subject, answers: dict[str, Any]) -> Iterator[Row]:
    """Measure part by part; greedy answers are added to `answers`."""
    tokenizer, data = subject.tokenizer, subject.request.data
    yield from _choices(suite, tokenizer, subject.logprobs, subject.room(), data)
    for name in (SHIPPED, *(path for path in suite.text if _is_there(path, data))):
        row = perplexity_row(name, text_of(name, data), suite, tokenizer, subject.logprobs, subject.room())
        yield {key: value for key, value in row.items() if key != "windows"}
    engine, room = subject.engine(), subject.room(suite.max_new_tokens)
    for part in (_instructions, _families):
        new, said = part(suite, engine, lambda tasks: render_prompts(tokenizer, with_system(tasks, suite.system), room))
        yield from new
        answers |= said


def _is_there(path: str, data: Path | None) -> bool:
    """Tell whether to read a file: missing files are skipped without a data folder, and are an error with one."""
    return data is not None or Path(path).is_file()


# ---------------------------------------------------------------------- by likelihood


def _choices(suite: RetentionSuite, tokenizer: Any, logprobs: Logprobs, room: int, data: Path | None) -> list[Row]:
    """Measure each file of questions, the shipped ones first; last all questions of the files together (or the shipped ones)."""

    def bits_of(path: str, columns: dict[str, str], n: int | None) -> str:
        tasks = load_tasks(TaskSource(path=[path], columns=columns, verifier="choice"), split="retention", n=n, seed=0, data=data)
        probe = make_probe("", tasks, tokenizer, window_tokens=suite.window_tokens, text_tokens=0, room=room)
        return measure_retention(probe, logprobs)["right"]

    shipped = bits_of(SHIPPED_QUESTIONS, {}, None)
    own = {path: bits_of(path, suite.columns, suite.n) for path in suite.choices if _is_there(path, data)}
    rows = [_share("choices", name, bits) for name, bits in {SHIPPED: shipped, **own}.items()]
    return [*rows, _share("choices", ALL, "".join(own.values()) or shipped)]


def _share(part: str, name: str, bits: Sequence[Any]) -> Row:
    """Compute the row of a share of 0s and 1s, as text or bools."""
    right = sum(bit in ("1", True) for bit in bits)
    low, high = wilson_interval(right, len(bits))
    return {"part": part, "name": name, "n": len(bits), "value": right / len(bits), "low": low, "high": high}


# ---------------------------------------------------------------------- by greedy answers


Prompts = Callable[[Sequence[Task]], list[tuple[int, ...]]]


def _instructions(suite: RetentionSuite, engine: Engine, prompts: Prompts) -> tuple[list[Row], dict[str, Any]]:
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


def _families(suite: RetentionSuite, engine: Engine, prompts: Prompts) -> tuple[list[Row], dict[str, Any]]:
    rows, said = [], {}
    how = Measurement(suite.max_new_tokens, pass_n=0, num_samples=0, sampling=Sampling(), seed=0)
    with VerifierReward(suite.timeout_seconds, isolate=suite.isolate_verifiers) as outcome:
        for family in suite.families:
            source = TaskSource(family=family, parameters=suite.family_parameters.get(family, {}), verifier=suite.family_verifier)
            tasks = load_tasks(source, split="retention", n=suite.family_n, seed=0)
            page = measure(engine, Suite(family, tasks, prompts(tasks), {}), how, outcome.judge)
            rows.append(_share("families", family, list(map(is_item_right, page["items"]))))
            said[family] = page["items"]
    return rows, said


def _line(row: Row) -> str:
    """Format a row as a line of the table."""
    number = "{value:6.2f} [{low:.2f}, {high:.2f}]" if row["part"] == "text" else "{value:6.1%} [{low:.1%}, {high:.1%}]"
    unit = "tokens" if row["part"] == "text" else ""
    return f"{row['part']:<13} {row['name']:<40} {number.format(**row)}  n = {row['n']:,} {unit}".rstrip()


RETENTION = SuiteDefinition("suite", "retention", RetentionSuite, _load, _measure)
"""Returns `choice_accuracy`, the row of all questions; `rows` with `part`, `name`, `n`, `value` and its 95 % interval `low`, `high`;
`answers` to instructions and problems; and `left_out`, what was not measured, if anything."""
