"""What one model knows and does: the parts of the retention suite, item by item, and their rows.

`measure_parts` yields the rows while it fills the `Items`, by which a model is compared with the start (`etude.suites.retention_changes`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from etude.engine.protocols import Engine
from etude.engine.sampling import GREEDY, Sampling
from etude.evaluation.instructions import instructions, is_followed
from etude.evaluation.kept import Answered
from etude.evaluation.measure import Measurement, Suite, measure
from etude.evaluation.retention import OLD_KNOWLEDGE, answer_questions, make_probe
from etude.evaluation.rewards import is_item_right
from etude.evaluation.statistics import wilson_interval
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.prompts import render_prompts
from etude.suites.general_knowledge import ALL, SHIPPED, SHIPPED_QUESTIONS, perplexity_row, text_of
from etude.suites.harness import Row, Subject
from etude.suites.retention_settings import RetentionSuite
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task, with_system
from etude.tasks.verifiers import VERIFIERS

INSTRUCTIONS, FAMILIES, CLOSED_BOOK = "instructions", "families", "closed book"
"""Parts with greedy answers."""

Prompts = Callable[[Sequence[Task], int], list[tuple[int, ...]]]
"""Tasks and the longest answer → prompts."""


@dataclass
class Items:
    """What a model was found to know and to do, item by item; models of one suite have the same items in the same order."""

    choices: dict[str, list[Answered]] = field(default_factory=dict)
    """Questions with choices: by name of the file, and all of them together."""
    right: dict[str, list[bool]] = field(default_factory=dict)
    """Whether each greedy answer is right, by part."""
    answers: dict[str, Any] = field(default_factory=dict)
    """Greedy answers as text, for the result."""


def measure_parts(suite: RetentionSuite, subject: Subject, items: Items, *, with_text: bool = True) -> Iterator[Row]:
    """Measure part by part; `items` are filled on the way. A text has no items: `with_text` False saves its time."""
    tokenizer, data = subject.tokenizer, subject.request.data
    yield from _choices(suite, subject, items)
    for name in texts_of(suite, data) if with_text else ():
        row = perplexity_row(name, text_of(name, data), suite, tokenizer, subject.logprobs, subject.room())
        yield {key: value for key, value in row.items() if key != "windows"}
    engine = subject.engine()
    parts = (_instructions, _families) if suite.against is None else (_instructions, _families, _closed_book)
    for part in parts:
        yield from part(suite, engine, prompts_of(suite, subject), items)


def texts_of(suite: RetentionSuite, data: Path | None) -> list[str]:
    """Return the names of the texts that are there, the shipped one first."""
    return [SHIPPED, *(path for path in suite.text if _is_there(path, data))]


def prompts_of(suite: RetentionSuite, subject: Subject) -> Prompts:
    """Return the function that renders tasks for a model."""
    return lambda tasks, longest: render_prompts(subject.tokenizer, with_system(tasks, suite.system), subject.room(longest))


def shipped_rows(name: str, n: int) -> list[dict[str, str]]:
    """Read the first `n` rows of a file that ships."""
    lines = (OLD_KNOWLEDGE / name).read_text(encoding="utf8").splitlines()
    return [json.loads(line) for line in lines[:n]]


def share_row(part: str, name: str, bits: Sequence[bool]) -> Row:
    """Compute the row of a share."""
    low, high = wilson_interval(sum(bits), len(bits))
    return {"part": part, "name": name, "n": len(bits), "value": sum(bits) / len(bits), "low": low, "high": high}


def _is_there(path: str, data: Path | None) -> bool:
    """Tell whether to read a file: missing files are skipped without a data folder, and are an error with one."""
    return data is not None or Path(path).is_file()


# ---------------------------------------------------------------------- by likelihood


def _choices(suite: RetentionSuite, subject: Subject, items: Items) -> list[Row]:
    """Measure each file of questions, the shipped ones first; last all questions of the files together (or the shipped ones)."""
    data = subject.request.data

    def answered(path: str, columns: dict[str, str], n: int | None) -> list[Answered]:
        tasks = load_tasks(TaskSource(path=[path], columns=columns, verifier="choice"), split="retention", n=n, seed=0, data=data)
        sizes = {"window_tokens": suite.window_tokens, "text_tokens": 0, "room": subject.room()}
        return answer_questions(make_probe("", tasks, subject.tokenizer, **sizes).questions, subject.logprobs)

    items.choices[SHIPPED] = answered(SHIPPED_QUESTIONS, {}, None)
    own = {path: answered(path, suite.columns, suite.n) for path in suite.choices if _is_there(path, data)}
    items.choices |= own | {ALL: [each for path in own for each in own[path]] or items.choices[SHIPPED]}
    return [share_row("choices", name, [each.is_right for each in found]) for name, found in items.choices.items()]


# ---------------------------------------------------------------------- by greedy answers


def _instructions(suite: RetentionSuite, engine: Engine, prompts: Prompts, items: Items) -> list[Row]:
    asked = instructions(suite.instructions)
    if not asked:
        return []
    texts = _said(engine, prompts([Task(each.prompt) for each in asked], suite.max_new_tokens), suite.max_new_tokens)
    bits = [is_followed(text, each) for text, each in zip(texts, asked, strict=True)]
    items.answers["instructions"] = [
        {"prompt": each.prompt, "rule": each.rule, "text": text, "is_followed": bit}
        for each, text, bit in zip(asked, texts, bits, strict=True)
    ]
    items.right[INSTRUCTIONS] = bits
    return [share_row(INSTRUCTIONS, "own prompts, rules checked", bits)]


def _families(suite: RetentionSuite, engine: Engine, prompts: Prompts, items: Items) -> list[Row]:
    rows = []
    how = Measurement(suite.max_new_tokens, pass_n=0, num_samples=0, sampling=Sampling(), seed=0)
    with VerifierReward(suite.timeout_seconds, isolate=suite.isolate_verifiers) as outcome:
        for family in suite.families:
            source = TaskSource(family=family, parameters=suite.family_parameters.get(family, {}), verifier=suite.family_verifier)
            tasks = load_tasks(source, split="retention", n=suite.family_n, seed=0)
            page = measure(engine, Suite(family, tasks, prompts(tasks, suite.max_new_tokens), {}), how, outcome.judge)
            items.answers[family], bits = page["items"], list(map(is_item_right, page["items"]))
            items.right.setdefault(FAMILIES, []).extend(bits)
            rows.append(share_row(FAMILIES, family, bits))
    return rows


def _closed_book(suite: RetentionSuite, engine: Engine, prompts: Prompts, items: Items) -> list[Row]:
    rows = shipped_rows("closed_book.jsonl", suite.closed_book)
    if not rows:
        return []
    tasks = [Task(row["question"], row["answer"], "aliases") for row in rows]
    texts = _said(engine, prompts(tasks, suite.closed_book_tokens), suite.closed_book_tokens)
    bits = [VERIFIERS["aliases"](text, task).score == 1.0 for text, task in zip(texts, tasks, strict=True)]
    items.answers["closed_book"] = [{**row, "text": text, "is_right": bit} for row, text, bit in zip(rows, texts, bits, strict=True)]
    items.right[CLOSED_BOOK] = bits
    return [share_row(CLOSED_BOOK, "own questions, names found", bits)]


def _said(engine: Engine, prompts: Sequence[tuple[int, ...]], max_new_tokens: int) -> list[str]:
    """Answer prompts greedily."""
    return [found[0].text for found in engine.generate(prompts, max_new_tokens=max_new_tokens, sampling=GREEDY)]
