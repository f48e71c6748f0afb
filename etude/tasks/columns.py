"""Converts a row of a data set, with its publisher's column names, to a task.

| columns | known from | becomes |
|---|---|---|
| `question` or `prompt` or `messages`, `answer`, and optional `worked`, `choices`, `verifier` | this project | unchanged |
| `question`, `answer`, `steps` | word problems with steps | worked = the steps, one per line, then "The answer is X." |
| `Body`, `Question`, `Answer` | SVAMP (Patel et al. 2021) | question = body and question; 51.0 becomes 51 |
| `question`, `answer` with `####` | GSM8K (Cobbe et al. 2021) | answer = the number after it; worked = the text without calculator marks |
| `prompt`, `instruction_id_list`, `kwargs` | IFEval (Zhou et al. 2023) | rules, checked by the verifier `instructions` |
| choices as {"text": [...], "label": [...]} | ARC (Clark et al. 2018) | lettered choices in the prompt, a letter as the answer |

Other columns go into the task's metadata. `columns` maps etude's names to a publisher's. A row may have no answer; verifiers that need one
then refuse it (`etude.tasks.checks.check_answers`). A number may be an answer, but not a question.
"""

import json
import math
import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from etude.errors import UserError, unknown
from etude.tasks.answers import parse_list
from etude.tasks.choices import read_choice, show_choices
from etude.tasks.instructions.ifeval import ifeval_rules
from etude.tasks.task import Task
from etude.tasks.templates import fill_template

NAMES = ("question", "answer", "worked", "choices", "messages", "verifier")
"""Etude's column names, which `columns` may map to others."""

_OURS = frozenset({*NAMES, "prompt", "steps", "Body", "Question", "Answer", "metadata"})
_KINDS = {bool: "value", int: "number", float: "number", dict: "object"}
_CALCULATOR = re.compile(r"<<[^<>\n]*+>>")


def task_from_row(
    row: Mapping[str, Any],
    *,
    origin: str,
    columns: Mapping[str, str],
    question: str | None = None,
    worked_format: str | None = None,
) -> Task:
    """Convert a row to a task; its verifier is that of the row, or "" without one.

    `origin` is the row's origin and begins every message. `question` and `worked_format` are format strings over the row's columns.
    Raises UserError for unknown columns and for values of a wrong type.
    """
    named = _rename_columns(row, columns, origin)
    choices, labels = _choices(named.get("choices"), origin)
    if isinstance(named.get("answer"), float) and not math.isfinite(named["answer"]):
        raise UserError(f"{origin}: the answer is {named['answer']}, which is not a number: write the answer, or leave the row out")
    answer, worked = _answer_and_worked(named)
    if choices and answer is not None:
        answer = _letter(answer, choices, labels, origin)
    text = fill_template("question", question, row) if question is not None else None
    if worked_format is not None:
        right = {"choice": choices[ord(answer) - ord("A")]} if choices and answer is not None else {}
        worked = fill_template("worked_format", worked_format, {**right, **named, "answer": answer, "worked": worked or ""})
    used = _OURS | set(columns.values())
    rules = {"rules": ifeval_rules(row, origin)} if "instruction_id_list" in row else {}
    extra = {name: value for name, value in row.items() if name not in used}
    return Task(
        prompt=_prompt(named, text, choices, row, origin),
        answer=answer,
        verifier=str(named.get("verifier") or ("instructions" if rules else "")),
        worked=worked,
        metadata=extra | rules | _metadata(named.get("metadata")) | ({"choices": choices} if choices else {}),
        origin=origin,
    )


def _rename_columns(row: Mapping[str, Any], columns: Mapping[str, str], origin: str) -> dict[str, Any]:
    named = dict(row)
    for ours, theirs in columns.items():
        if ours not in NAMES:
            raise unknown("name in columns", ours, NAMES)
        if theirs not in row:
            raise unknown(f"column (columns.{ours}) in {origin}", theirs, map(str, row))
        named[ours] = row[theirs]
    if "Body" in named and "Question" in named and "question" not in named:
        body = str(named["Body"]).strip()
        named["question"] = f"{body}{'' if body.endswith(('.', '!', '?', ',')) else '.'} {str(named['Question']).strip()}"
        named.setdefault("answer", named.get("Answer"))
    return named


def _prompt(
    named: Mapping[str, Any], text: str | None, choices: list[str], row: Mapping[str, Any], origin: str
) -> str | tuple[Mapping[str, str], ...]:
    """Build the prompt: chat messages or text, from the `question` format string if there is one, with the choices at its end."""
    messages = named.get("messages")
    if messages and text is None:
        return _messages(messages, choices, origin)
    text = text if text is not None else named.get("question") or named.get("prompt")
    if isinstance(text, list):
        return _messages(text, choices, origin)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{origin}: {_no_question(named, row)}")
    return show_choices(text, choices) if choices else text


def _no_question(named: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """Describe why a row has no question."""
    column = next((name for name in ("question", "prompt", "messages") if name in named), None)
    value = named.get("question") or named.get("prompt") or (named[column] if column else None)
    if column is None:
        columns = ", ".join(map(str, row))
        return (
            f"no question. The columns are {columns}; say which is which, for example columns: {{question: THEIR_NAME, answer: THEIR_NAME}}"
        )
    if value is None:
        return f"the {column} is null: write the text, or leave the row out"
    if isinstance(value, str) or value == []:
        return f"the {column} is empty: write the text, or leave the row out"
    return (
        f"the {column} must be text, got the {_KINDS.get(type(value), type(value).__name__)} {str(value)[:40]}: put it in quotation marks"
    )


def _metadata(value: Any) -> dict[str, Any]:
    """Read the `metadata` column: the entries of an object, one entry for another value, none if it is empty."""
    if isinstance(value, Mapping):
        return dict(value)
    return {} if value is None or value == "" else {"metadata": value}


def _messages(messages: Any, choices: list[str], origin: str) -> tuple[Mapping[str, str], ...]:
    good = isinstance(messages, list) and all(
        isinstance(message, Mapping) and isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
        for message in messages
    )
    if not good or not messages or messages[-1]["role"] != "user":
        raise UserError(f"{origin}: messages must be a list of {{role, content}} that ends with the user's, got {str(messages)[:80]}")
    turns = [{"role": message["role"], "content": message["content"]} for message in messages]
    if choices:
        turns[-1]["content"] = show_choices(turns[-1]["content"], choices)
    return tuple(turns)


def _answer_and_worked(named: Mapping[str, Any]) -> tuple[Any, str | None]:
    answer, worked, steps = named.get("answer"), named.get("worked"), named.get("steps")
    if isinstance(answer, str) and "####" in answer and not worked:
        text, _, answer = answer.rpartition("####")
        answer = answer.strip().replace(",", "")
        worked = f"{_CALCULATOR.sub('', text).strip()}\nThe answer is {answer}."
    if not isinstance(answer, int) or isinstance(answer, bool):
        answer = _text(answer)
    if isinstance(steps, list) and not worked and answer is not None:
        worked = "\n".join([*map(str, steps), f"The answer is {answer}."])
    if not named.get("choices"):
        answer = _text(answer)
    return answer, None if not worked else str(worked)


def _text(value: Any) -> str | None:
    """Convert a value to the text of an answer: a whole float loses its point, a list or object becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value) if isinstance(value, (list, dict)) else str(value)


def _choices(value: Any, origin: str) -> tuple[list[str], list[str]]:
    """Read the texts of the choices, and their labels if the data set has labels."""
    if not value:
        return [], []
    labels: Any = None
    if isinstance(value, Mapping) and "text" in value:
        value, labels = value["text"], value.get("label")
    if isinstance(value, str):
        value = parse_list(value.strip())
    if not isinstance(value, (list, tuple)) or not 2 <= len(value) <= len(ascii_uppercase):
        raise UserError(f"{origin}: choices must be a list of 2 to 26 texts, got {str(value)[:80]}")
    return [str(choice) for choice in value], [str(label) for label in labels or ()][: len(value)]


def _letter(answer: Any, choices: list[str], labels: list[str], origin: str) -> str:
    """Find the letter of the right choice from the data set's label, an index from 0, a letter or the choice's text.

    An index written as text, as in a CSV file, counts only if there are no labels and no choice has that text.
    """
    written = str(answer).strip()
    if written in labels:
        return ascii_uppercase[labels.index(written)]
    if isinstance(answer, int) and 0 <= answer < len(choices):
        return ascii_uppercase[answer]
    letter = read_choice(written, choices)
    if letter is None and not labels and written in map(str, range(len(choices))):
        letter = ascii_uppercase[int(written)]
    if letter is None:
        last = ascii_uppercase[len(choices) - 1]
        raise UserError(
            f"{origin}: answer {answer!r} is not a choice: give a letter A-{last}, an index 0-{len(choices) - 1} or the text of a choice"
        )
    return letter
