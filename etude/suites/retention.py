"""The retention suite: general knowledge and skills that a model may lose in practice, as `etude evaluate MODEL --suite retention`.

part          measured by                                                 number
choices       likelihood (`etude.evaluation.retention`)                   accuracy of each file, and of all its questions together
text          likelihood                                                  perplexity of each file
instructions  greedy answers, rules that a function checks                share followed
families      greedy answers to problems of reasoning-gym                 accuracy of each family

`choice_accuracy` is that of all questions of the files, or without files of the shipped ones. Prompts ignore the system message and
instruction in a model's folder, so that numbers of two models are comparable. The shipped data is always measured; without a data folder
there are no other choices and texts.

Accuracies say what a model knows, but hardly what it lost: a question answered by chance can't be forgotten. With `against`, the model that
practice began with, both models answer the same items, closed-book questions among them, and further rows say what is left
(`etude.suites.retention_changes`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from etude.console.reporter import Silent
from etude.models.load import describe_weights, load_model
from etude.settings.configuration import flatten, to_plain_values
from etude.settings.unused import unread_among
from etude.suites.harness import Request, Row, Subject, SuiteDefinition, report_rows
from etude.suites.retention_changes import changed_rows, check_same_tokens
from etude.suites.retention_parts import Items, measure_parts
from etude.suites.retention_settings import READ_AGAINST_A_START, RetentionSuite


def _load(suite: RetentionSuite, request: Request) -> str | None:
    """Report and return what is omitted without a data folder."""
    if suite.against is None:
        unread: dict[tuple[str, ...], str] = {READ_AGAINST_A_START: "against names no model"}
        for sentence in unread_among(suite, flatten(to_plain_values(RetentionSuite())), unread):
            request.reporter.say(f"unused settings: {sentence}")
    files = [*suite.choices, *suite.text] if request.data is None else []
    missing = [path for path in files if not Path(path).is_file()]
    left_out = f"without --data DIR, the folder of data sets, these were left out: {', '.join(missing)}" if missing else None
    if left_out:
        request.reporter.say(left_out)
    return left_out


def _measure(suite: RetentionSuite, left_out: str | None, subject: Subject, _: str) -> dict[str, Any]:
    start = None if suite.against is None else _start(suite.against, subject)
    items = Items()
    rows = report_rows(measure_parts(suite, subject, items), _line, subject.reporter)
    overall = [row for row in rows if row["part"] == "choices"][-1]
    found = {"choice_accuracy": overall, "rows": rows, "answers": items.answers, "left_out": left_out}
    if suite.against is None or start is None:
        return found
    before = Items()
    own = [*measure_parts(suite, start, before, with_text=False)]
    rounded = _in_other_precision(suite, start) if suite.floor else None
    facts = {"model": suite.against, "weights": describe_weights(suite.against), "rows": own}
    rows += report_rows(changed_rows(suite, start, subject, before, items, rounded), _line, subject.reporter)
    return found | {"against": facts | {"answers": before.answers}}


def _start(name: str, subject: Subject) -> Subject:
    """Load the model that practice began with. Raises UserError if it can't be loaded, or has another tokenizer."""
    model, tokenizer = load_model(name, device=subject.place.device)
    start = replace(subject, model=model, tokenizer=tokenizer, request=replace(subject.request, reporter=Silent()))
    check_same_tokens(start, subject)
    return start


def _in_other_precision(suite: RetentionSuite, start: Subject) -> Items:
    """Measure the start's greedy answers in float32 instead of bfloat16, or in bfloat16 instead of float32."""
    items, other = Items(), "float32" if start.place.precision == "bfloat16" else "bfloat16"
    for _ in measure_parts(replace(suite, choices=[]), replace(start, place=replace(start.place, precision=other)), items, with_text=False):
        pass
    return items


def _line(row: Row) -> str:
    """Format a row as a line of the table."""
    form = {"text": "{:6.2f} [{:.2f}, {:.2f}]", "divergence": "{:7.4f} [{:.4f}, {:.4f}]"}.get(row["part"], "{:6.1%} [{:.1%}, {:.1%}]")
    number = form.format(row["value"], row["low"], row["high"])
    unit = "tokens" if row["part"] in ("text", "divergence") else ""
    return f"{row['part']:<13} {row['name']:<40} {number}  n = {row['n']:,} {unit}".rstrip()


RETENTION = SuiteDefinition("suite", "retention", RetentionSuite, _load, _measure)
"""Returns `choice_accuracy`, the row of all questions; `rows` with `part`, `name`, `n`, `value` and its 95 % interval `low`, `high`;
`answers` to instructions and problems; `left_out`, what was not measured, if anything; and, if a start is named, `against`, its `answers`
and its `rows` but for those of texts."""
