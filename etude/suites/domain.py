"""The domain suite: domain questions, questions of neighbouring and other domains, and perplexity of general text.

part      questions, by likelihood (`etude.evaluation.likelihood`) except `said`  value
choices   the domain's questions with choices, of the measured split              accuracy
open      its open questions                                                      nats per byte of the answer
cloze     a term for its definition, among three others of the same section       accuracy
near      questions of neighbouring domains, a row for each file and for all      accuracy
far       questions of other domains, the same                                    accuracy
said      the term for a definition and open questions, answered in words         F1 of words
text      perplexity of general texts                                             perplexity

Without files of far questions or of text, the shipped ones are used: 80 questions and a page of common knowledge. Accuracy is by likelihood
per byte; rows also have `sum`, `calibrated` and `nats`, which changes before an answer does. `bits` are the answers of each row, for paired
tests of two models.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from etude.console.reporter import Reporter
from etude.engine.completion import Logprobs
from etude.engine.protocols import PrefixEngine
from etude.engine.sampling import GREEDY
from etude.errors import UserError
from etude.evaluation.likelihood import LikelihoodQuestion, LikelihoodResult, cloze_questions, question_from_task, score_questions
from etude.evaluation.retention import leading_tokens, token_ids
from etude.evaluation.statistics import mean_interval, wilson_interval
from etude.suites.domain_settings import DomainSuite, MeasuredDomain
from etude.suites.general_knowledge import ALL, SHIPPED, SHIPPED_QUESTIONS, perplexity_row, text_of
from etude.suites.harness import Request, Row, Subject, SuiteDefinition, report_rows
from etude.tasks.files import file_rows, find_file
from etude.tasks.sources import SPLIT_SHARES, TaskSource, hash_split, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import words

Answers = Callable[[Sequence[str]], Sequence[str]]
"""Prompts → the texts that a model generates."""
_SAID_TOKENS = 48
"""Maximum length of a generated answer, in tokens."""

Questions = dict[tuple[str, str], list[LikelihoodQuestion]]
"""Questions by part and name."""


def load_questions(suite: DomainSuite, data: Path | None) -> Questions:
    """Load all questions of the suite, by part and name. Raises UserError for a file that can't be read or has no questions."""
    found: Questions = {}
    for path in suite.questions:
        found["choices", path] = _tasks(suite, path, suite.choices_where, data, suite.columns)
        if suite.open_where:
            columns = {ours: theirs for ours, theirs in suite.columns.items() if ours != "choices"}
            found["open", path] = _tasks(suite, path, suite.open_where, data, columns)
    for path in suite.glossary:
        rows = list(file_rows(find_file(path, data)))
        asked = [question for question, (_, row) in zip(cloze_questions(rows), rows, strict=True) if _is_of_split(suite, row)]
        if not asked:
            raise UserError(f"glossary {path} gave no terms for split {suite.split!r} of {suite.split_by}: name another split")
        found["cloze", path] = _picked(asked, suite.glossary_n)
    for part in ("near", "far"):
        for path in getattr(suite, f"{part}_domain"):
            source = TaskSource(path=[path], columns=suite.columns, verifier="choice")
            tasks = load_tasks(source, split=suite.split, n=None, seed=0, data=data)
            found[part, path] = _picked([question_from_task(task) for task in tasks], suite.n)
    if not suite.far_domain:
        tasks = load_tasks(TaskSource(path=[SHIPPED_QUESTIONS], verifier="choice"), split=suite.split, n=None, seed=0)
        found["far", SHIPPED] = [question_from_task(task) for task in tasks]
    return found


def load_texts(suite: DomainSuite, data: Path | None) -> list[tuple[str, str]]:
    """Return the names and the texts whose perplexity is measured. Raises UserError for a file that can't be read."""
    return [(name, text_of(name, data)) for name in suite.text or [SHIPPED]]


def _tasks(suite: DomainSuite, path: str, where: dict[str, str], data: Path | None, columns: dict[str, str]) -> list[LikelihoodQuestion]:
    source = TaskSource(path=[path], where=where, split_by=suite.split_by, columns=columns)
    return [question_from_task(task) for task in load_tasks(source, split=suite.split, n=None, seed=0, data=data)]


def _is_of_split(suite: DomainSuite, row: Mapping[str, Any]) -> bool:
    column = suite.split_by
    return column is None or column not in row or hash_split(str(row[column]), SPLIT_SHARES) == suite.split


def _picked(asked: list[LikelihoodQuestion], n: int | None) -> list[LikelihoodQuestion]:
    """Take `n` questions at equal distances, in order; all if there are fewer."""
    if n is None or n >= len(asked):
        return asked
    return [asked[place * len(asked) // n] for place in range(n)]


def measure_domain(
    suite: DomainSuite,
    asked: Questions,
    texts: Sequence[tuple[str, str]],
    tokenizer: Any,
    logprobs: Logprobs,
    answers: Answers,
    room: int,
    reporter: Reporter,
) -> list[Row]:
    """Measure every part and file, and for near and far all their questions together; report and return the rows."""
    return report_rows(_rows(suite, asked, texts, tokenizer, logprobs, answers, room), line, reporter)


def _rows(
    suite: DomainSuite,
    asked: Questions,
    texts: Sequence[tuple[str, str]],
    tokenizer: Any,
    logprobs: Logprobs,
    answers: Answers,
    room: int,
) -> Iterator[Row]:
    parts: dict[str, list[LikelihoodResult]] = {}
    for (part, name), questions in asked.items():
        known = score_questions(questions, tokenizer, logprobs, room)
        parts.setdefault(part, []).append(known)
        yield row_of(part, name, [known])
        if part in ("near", "far") and len(parts[part]) == len(getattr(suite, f"{part}_domain")) > 1:
            yield row_of(part, ALL, parts[part])
    for (part, name), questions in asked.items():
        if part in ("cloze", "open") and suite.generated_n:
            yield said_row(name, _picked(questions, suite.generated_n), answers)
    for name, text in texts:
        yield perplexity_row(name, text, suite, tokenizer, logprobs, room)


def greedy_answers_by(engine: Callable[[], PrefixEngine], room: int) -> Answers:
    """Return a function that answers greedily to the end of the line; it builds its engine, which may copy the model, on the call."""

    def answers(prompts: Sequence[str]) -> list[str]:
        asked = engine()
        start, longest = leading_tokens(asked.tokenizer), min(_SAID_TOKENS, room // 2)
        ids = [(*start, *token_ids(asked.tokenizer, prompt)[-(room - longest - len(start)) :]) for prompt in prompts]
        found = asked.generate(ids, max_new_tokens=longest, sampling=GREEDY, stop_strings=["\n"])
        return [completion.text for (completion,) in found]

    return answers


def said_row(name: str, questions: Sequence[LikelihoodQuestion], answers: Answers) -> Row:
    """Measure the generated answers to these questions by the F1 of words shared with the correct ones."""
    said = answers([question.prompt for question in questions])
    gold = [question.choices[question.right] for question in questions]
    f1s = [words(text, Task("", right)).score or 0.0 for text, right in zip(said, gold, strict=True)]
    low, high = mean_interval(f1s)
    row = {"part": "said", "name": name, "n": len(f1s), "value": fmean(f1s), "low": low, "high": high}
    return row | {"exact": fmean(f1 == 1 for f1 in f1s), "f1s": [round(f1, 4) for f1 in f1s]}


def row_of(part: str, name: str, known: Sequence[LikelihoodResult]) -> Row:
    """Compute the row of one or several lists of questions together."""
    nats = [value for each in known for value in each.nats]
    row: Row = {"part": part, "name": name, "n": len(nats)}
    if not known[0].right:
        low, high = mean_interval(nats)
        return row | {"value": fmean(nats), "low": low, "high": high, "each": [round(value, 4) for value in nats]}
    right = {scoring: [bit for each in known for bit in each.right[scoring]] for scoring in known[0].right}
    low, high = wilson_interval(sum(right["per_byte"]), len(nats))
    row |= {"value": fmean(right["per_byte"]), "low": low, "high": high}
    row |= {scoring: fmean(right[scoring]) for scoring in ("sum", "calibrated")}
    return row | {"nats": fmean(nats), "bits": "".join(str(int(bit)) for bit in right["per_byte"])}


def line(row: Row) -> str:
    """Format a row as a line of the table."""
    if "f1s" in row:
        return "{part:<8} {name:<38} {value:6.1%} [{low:.1%}, {high:.1%}] F1, {exact:.1%} exact  n = {n:,}".format(**row)
    number = "{value:6.1%} [{low:.1%}, {high:.1%}]" if "bits" in row else "{value:6.3f} [{low:.3f}, {high:.3f}]"
    others = ", sum {sum:.1%}, calibrated {calibrated:.1%}, {nats:.3f} nats a byte".format(**row) if "bits" in row else ""
    unit = {"open": "nats a byte", "text": "tokens, perplexity"}.get(row["part"], "")
    return f"{row['part']:<8} {row['name']:<38} {number.format(**row)}{others}  n = {row['n']:,} {unit}".rstrip()


def _load(suite: DomainSuite, request: Request) -> tuple[Questions, list[tuple[str, str]]]:
    return load_questions(suite, request.data), load_texts(suite, request.data)


def _measure(suite: DomainSuite, loaded: tuple[Questions, list[tuple[str, str]]], subject: Subject, _: str) -> dict[str, Any]:
    answers = greedy_answers_by(subject.engine, subject.room())
    return {"rows": measure_domain(suite, *loaded, subject.tokenizer, subject.logprobs, answers, subject.room(), subject.reporter)}


DOMAIN = SuiteDefinition("domain", "domain", MeasuredDomain, _load, _measure)
"""Returns `rows` with `part`, `name`, `n`, `value` and its 95 % interval `low`, `high`; of questions `nats`, and with choices `sum`,
`calibrated` and `bits`."""
