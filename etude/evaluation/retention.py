"""Retention metrics: perplexity on a text and multiple-choice accuracy, both only by likelihood.

Nothing is sampled, so the answer format taught by practice has no effect.

    perplexity = exp(- mean log p(token | tokens before it in its window))

A question is answered by the choice with the highest log-prob per byte after "Question: ...\\nAnswer:" (after acc_norm of
lm-evaluation-harness, Gao et al. 2021, which counts characters). The text and the 80 questions of common knowledge in `old_knowledge/` were
written for etude, so no model was trained on them. They detect severe forgetting; use your own files for the knowledge that you need.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etude.engine.completion import Logprobs, Tokens
from etude.errors import UserError
from etude.evaluation.kept import Answered
from etude.evaluation.statistics import mean_interval, paired_test, wilson_interval
from etude.tasks.choices import choices_of, remove_choices
from etude.tasks.task import Task

OLD_KNOWLEDGE = Path(__file__).with_name("old_knowledge")


@dataclass(frozen=True)
class ChoiceQuestion:
    """A multiple-choice question as tokens."""

    prompt: Tokens
    choices: tuple[Tokens, ...]
    sizes: tuple[int, ...]
    """Bytes of each choice's text."""
    right: int


@dataclass(frozen=True)
class Probe:
    """The windows of text and the questions that retention is measured on."""

    windows: list[Tokens]
    """Windows of the text; the first token of each is not predicted."""
    questions: list[ChoiceQuestion]

    @property
    def key(self) -> str:
        """Return a hash that identifies this probe."""
        return hashlib.blake2b(repr((self.windows, self.questions)).encode(), digest_size=8).hexdigest()


def make_probe(text: str, tasks: Sequence[Task], tokenizer: Any, *, window_tokens: int, text_tokens: int, room: int) -> Probe:
    """Build a probe from windows of the text's first `text_tokens`, and from multiple-choice tasks of at most `room` tokens."""
    start, ids = leading_tokens(tokenizer), token_ids(tokenizer, text)[:text_tokens]
    own = window_tokens - len(start)
    windows = [(*start, *ids[begin : begin + own]) for begin in range(0, len(ids), own)]
    if len(windows) > 1 and 2 * len(windows[-1]) < window_tokens:  # a short last window would count as much as a whole one
        windows.pop()
    return Probe([window for window in windows if len(window) > 1], [_question(task, tokenizer, start, room) for task in tasks])


def leading_tokens(tokenizer: Any) -> Tokens:
    """Return the tokens that the tokenizer puts before every text, if any."""
    text, whole = token_ids(tokenizer, "x"), tuple(tokenizer("x")["input_ids"])
    return next(whole[:i] for i in range(len(whole)) if whole[i : i + len(text)] == text)


def token_ids(tokenizer: Any, text: str) -> Tokens:
    """Tokenize a text without special tokens."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _question(task: Task, tokenizer: Any, start: Tokens, room: int) -> ChoiceQuestion:
    choices = choices_of(task)
    if not choices or task.answer is None:
        raise UserError(f"retention.choices: {task.origin} needs choices and an answer")
    shown = f"Question: {remove_choices(task.question, choices)}\nAnswer:"
    prompt = token_ids(tokenizer, shown)
    tokens = tuple(token_ids(tokenizer, f"{shown} {choice}")[len(prompt) :] for choice in choices)
    length = len(start) + len(prompt) + max(map(len, tokens))
    if length > room or not all(tokens):
        raise UserError(f"retention.choices: {task.origin} has {length} tokens with its longest choice; there is room for 1 to {room}")
    return ChoiceQuestion((*start, *prompt), tokens, tuple(len(choice.encode()) for choice in choices), ord(task.answer) - ord("A"))


def measure_retention(probe: Probe, logprobs: Logprobs) -> dict[str, Any]:
    """Measure a probe and return the record for an evaluation page.

    `probe` is its key. `row` has perplexity, text_tokens, choice_accuracy with its interval and choices_n. `nats` has the mean nats per
    token of every window, `right` a 0 or 1 for every question.
    """
    row: dict[str, Any] = {}
    found: dict[str, Any] = {"probe": probe.key, "row": row}
    if probe.windows:
        nats = [-sum(values) for values in logprobs([(window[:1], window[1:]) for window in probe.windows])]
        tokens = [len(window) - 1 for window in probe.windows]
        row |= {"perplexity": math.exp(sum(nats) / sum(tokens)), "text_tokens": sum(tokens)}
        found["nats"] = [n / t for n, t in zip(nats, tokens, strict=True)]
    if probe.questions:
        right = [each.is_right for each in answer_questions(probe.questions, logprobs)]
        low, high = wilson_interval(sum(right), len(right))
        row |= {"choice_accuracy": sum(right) / len(right), "choice_accuracy_low": low, "choice_accuracy_high": high}
        row["choices_n"] = len(right)
        found["right"] = "".join(str(int(bit)) for bit in right)
    return found


def answer_questions(questions: Sequence[ChoiceQuestion], logprobs: Logprobs) -> list[Answered]:
    """Answer each question by likelihood."""
    found = iter(logprobs([(question.prompt, choice) for question in questions for choice in question.choices]))
    return [_answered(question, [sum(next(found)) for _ in question.choices]) for question in questions]


def _answered(question: ChoiceQuestion, scores: Sequence[float]) -> Answered:
    per_token = [score / len(choice) for score, choice in zip(scores, question.choices, strict=True)]
    right = per_token.pop(question.right)
    margin = right - max(per_token, default=right)
    return Answered(margin, _most_likely(question, scores) == question.right, 1 / len(scores))


def _most_likely(question: ChoiceQuestion, scores: Sequence[float]) -> int:
    per_byte = [score / size for score, size in zip(scores, question.sizes, strict=True)]
    return per_byte.index(max(per_byte))


def compare_retention(first: str, second: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Compare two measurements of one probe: mean change in nats per token over windows, with its interval, and the paired test of the
    questions.
    """
    found: dict[str, Any] = {"first": first, "second": second}
    if "nats" in before:
        changes = [b - a for a, b in zip(before["nats"], after["nats"], strict=True)]
        low, high = mean_interval(changes)
        found |= {"nats": sum(changes) / len(changes), "nats_low": low, "nats_high": high}
    if "right" in before:
        right_before, right_after = ([bit == "1" for bit in page["right"]] for page in (before, after))
        found["choices"] = vars(paired_test(right_before, right_after))
    return found
