"""Scores questions only by likelihood: multiple choice, open questions with an answer, and terms given their definition.

A multiple-choice question is answered by the choice with the highest score. Three scores come from the same log-probs:

    per_byte     log p(choice | question) / bytes of the choice                         (acc_norm of lm-evaluation-harness, which counts
                                                                                         characters)
    sum          log p(choice | question)                                               (its acc)
    calibrated   log p(choice | question) - log p(choice | "Answer:")                   (PMI-DC, Holtzman et al. 2021, arXiv 2104.08315)

`nats` is minus log p(correct choice | question) per byte. It changes before an answer does, and it is the only metric of an open question.
A term becomes a multiple-choice question, "Definition: ...\\nTerm:", whose other choices are terms of the same section if there are enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from etude.engine.completion import Logprobs, Tokens
from etude.errors import UserError
from etude.evaluation.retention import leading_tokens, token_ids
from etude.randomness import seed_for
from etude.tasks.choices import choices_of, remove_choices
from etude.tasks.task import Task

SCORINGS = ("per_byte", "sum", "calibrated")
_CHOICES = 4
_UNASKED = "Answer:"


@dataclass(frozen=True)
class LikelihoodQuestion:
    """A prompt and its possible continuations; the one at index `right` is correct."""

    prompt: str
    choices: tuple[str, ...]
    right: int
    origin: str = ""


@dataclass(frozen=True)
class LikelihoodResult:
    """The results of a list of questions."""

    right: Mapping[str, list[bool]]
    """By scoring, whether each question was answered correctly; empty without choices."""
    nats: list[float]
    """Minus the log-prob of each correct answer, per byte."""


def question_from_task(task: Task) -> LikelihoodQuestion:
    """Convert a task to a question, with its choices or only with its answer.

    Raises UserError for a task without an answer.
    """
    choices = tuple(choices_of(task))
    if task.answer is None:
        raise UserError(f"{task.origin} has no answer: a question needs one")
    shown = f"Question: {remove_choices(task.question, choices)}\nAnswer:"
    return LikelihoodQuestion(shown, choices or (task.answer,), ord(task.answer) - ord("A") if choices else 0, task.origin)


def cloze_questions(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[LikelihoodQuestion]:
    """Create multiple-choice questions from glossary rows (`term`, `definition`, optional `section`): the term and three others.

    The other terms are sampled, seeded by the term, from the same section, or from all sections if that has too few. Raises UserError if a
    column is missing or if there are fewer than four different terms.
    """
    for origin, row in rows:
        for column in ("term", "definition"):
            if not isinstance(row.get(column), str) or not row[column].strip():
                raise UserError(f"{origin} has no {column}: a glossary needs the columns term and definition; it has {', '.join(row)}")
    terms = list(dict.fromkeys(row["term"] for _, row in rows))
    if len(terms) < _CHOICES:
        raise UserError(f"a glossary needs at least {_CHOICES} different terms to choose from, got {len(terms)}")
    of_section: dict[Any, list[str]] = {}
    for _, row in rows:
        of_section.setdefault(row.get("section"), []).append(row["term"])
    asked = []
    for origin, row in rows:
        draw = np.random.default_rng(seed_for("cloze", row["term"], row["definition"]))
        near = [term for term in dict.fromkeys(of_section[row.get("section")]) if term != row["term"]]
        others = near if len(near) >= _CHOICES - 1 else [term for term in terms if term != row["term"]]
        choices = [row["term"], *(others[place] for place in draw.permutation(len(others))[: _CHOICES - 1])]
        order = draw.permutation(_CHOICES)
        shown = f"Definition: {row['definition'].strip()}\nTerm:"
        asked.append(LikelihoodQuestion(shown, tuple(choices[place] for place in order), int(np.flatnonzero(order == 0)[0]), origin))
    return asked


def score_questions(questions: Sequence[LikelihoodQuestion], tokenizer: Any, logprobs: Logprobs, room: int) -> LikelihoodResult:
    """Compute the log-prob of every choice after its question; questions longer than `room` tokens are truncated on the left.

    Raises UserError if only some questions have choices, for an empty choice, and for an answer longer than `room`.
    """
    if len({len(question.choices) > 1 for question in questions}) > 1:
        one = next(question for question in questions if len(question.choices) == 1)
        raise UserError(f"{one.origin} has no choices, where others have: tell them apart by choices_where and open_where")
    for question in questions:
        if not all(choice.strip() for choice in question.choices):
            raise UserError(f"{question.origin} has an empty choice or answer: mend it, or leave it out")
    pairs = [_tokens(tokenizer, question.prompt, choice, room) for question in questions for choice in question.choices]
    unasked = list(dict.fromkeys(choice for question in questions if len(question.choices) > 1 for choice in question.choices))
    alone = [_tokens(tokenizer, _UNASKED, choice, room) for choice in unasked]
    found = iter(logprobs([*pairs, *alone]))
    sums = [[sum(next(found)) for _ in question.choices] for question in questions]
    prior = {choice: sum(next(found)) for choice in unasked}
    right: dict[str, list[bool]] = {scoring: [] for scoring in SCORINGS} if unasked else {}
    nats = []
    for question, own in zip(questions, sums, strict=True):
        sizes = [len(choice.encode()) for choice in question.choices]
        nats.append(-own[question.right] / sizes[question.right])
        if len(question.choices) > 1:
            scores = {
                "per_byte": [value / size for value, size in zip(own, sizes, strict=True)],
                "sum": own,
                "calibrated": [value - prior[choice] for value, choice in zip(own, question.choices, strict=True)],
            }
            for scoring, values in scores.items():
                right[scoring].append(values.index(max(values)) == question.right)
    return LikelihoodResult(right, nats)


def _tokens(tokenizer: Any, prompt: str, choice: str, room: int) -> tuple[Tokens, Tokens]:
    """Tokenize prompt (after the tokenizer's leading tokens) and choice."""
    before = token_ids(tokenizer, prompt)
    completion = token_ids(tokenizer, f"{prompt} {choice}")[len(before) :]
    start = leading_tokens(tokenizer)
    left = room - len(completion) - len(start)
    if not completion or left < 1:
        raise UserError(f"the answer {choice[:80]!r} has {len(completion)} tokens; there is room for 1 to {room - len(start) - 1}")
    return (*start, *before[-left:]), completion
