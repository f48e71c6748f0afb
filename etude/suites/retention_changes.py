"""What is left of what the start of practice knew and did: rows of the retention suite for a model and its start.

part          of                                                                       value
known         questions that the start knows with a margin (`etude.evaluation.kept`)   share still known; `sure_right` is the share that
                                                                                       the start has right of all that it is as sure of
above chance  all questions with choices                                               the start's accuracy above chance that is left
kept          greedy answers that the start had right                                  share right
newly right   greedy answers that the start had wrong                                  share right
floor         greedy answers that the start had right                                  share that it has right in the other precision, where
                                                                                       rounding alone changes answers
divergence    tokens of texts, and of the start's answers to everyday prompts          KL(start || now), exact, in nats a token

Of what the start has nothing of (no question known, no answer right, accuracy not clearly above chance) there is no row. Intervals are over
questions and tasks, of a divergence over windows of text and over prompts. They say how sure the numbers of this one model are; runs of one
method differ by more.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from etude.engine.completion import Tokens
from etude.engine.sampling import GREEDY
from etude.errors import UserError
from etude.evaluation.kept import above_chance, kept_and_new, still_known
from etude.evaluation.retention import make_probe
from etude.evaluation.statistics import ratio_of_sums
from etude.evaluation.token_divergence import token_divergence
from etude.suites.general_knowledge import ALL, SHIPPED, text_of
from etude.suites.harness import Row, Subject
from etude.suites.retention_parts import Items, prompts_of, share_row, shipped_rows, texts_of
from etude.suites.retention_settings import RetentionSuite
from etude.tasks.task import Task

CHAT = "everyday prompts, the start's answers"
"""Name of the pieces that the start itself wrote."""

PiecesByName = dict[str, list[tuple[Tokens, Tokens]]]
"""What is read and what is predicted after it, by name of the text."""


def check_same_tokens(start: Subject, now: Subject) -> None:
    """Raise UserError for models of different tokenizers, whose tokens can't be compared."""
    if start.tokenizer.get_vocab() != now.tokenizer.get_vocab():
        raise UserError("against: the model has another tokenizer than this start; name the model that its practice began with")


def changed_rows(
    suite: RetentionSuite, start: Subject, now: Subject, before: Items, after: Items, rounded: Items | None = None
) -> Iterator[Row]:
    """Compare a model with its start, whose items are already measured, `rounded` in the other precision."""
    yield from kept_rows(suite, before, after, rounded)
    yield from divergence_rows(start.model, now.model, divergence_pieces(suite, start))


def kept_rows(suite: RetentionSuite, before: Items, after: Items, rounded: Items | None = None) -> Iterator[Row]:
    """Compare two models by their items; `rounded` are those of the first in the other precision."""
    for name in (SHIPPED, ALL):
        then, now = before.choices[name], after.choices[name]
        if known := still_known(then, now, suite.known_margin):
            sure = sum(abs(each.margin) >= suite.known_margin for each in then)
            yield share_row("known", name, known) | {"sure_right": len(known) / sure}
        if ratio := above_chance(then, now):
            yield _ratio_row("above chance", name, len(now), ratio)
    for part, bits in before.right.items():
        for kind, now_right in zip(("kept", "newly right"), kept_and_new(bits, after.right[part]), strict=True):
            if now_right:
                yield share_row(kind, part, now_right)
        if rounded and any(bits):
            yield share_row("floor", part, kept_and_new(bits, rounded.right[part])[0])


def divergence_pieces(suite: RetentionSuite, start: Subject) -> PiecesByName:
    """Return the windows of each text, and everyday prompts with greedy answers of the start."""
    found: PiecesByName = {}
    data, room = start.request.data, start.room()
    sizes: dict[str, Any] = {"window_tokens": min(suite.window_tokens, room), "text_tokens": suite.divergence_tokens, "room": room}
    for name in texts_of(suite, data):
        windows = make_probe(text_of(name, data), [], start.tokenizer, **sizes).windows
        found[name] = [(window[:1], window[1:]) for window in windows]
    prompts = prompts_of(suite, start)([Task(row["prompt"]) for row in shipped_rows("chat.jsonl", suite.chat_prompts)], suite.chat_tokens)
    answers = start.engine().generate(prompts, max_new_tokens=suite.chat_tokens, sampling=GREEDY)
    found[CHAT] = [(prompt, own[0].tokens) for prompt, own in zip(prompts, answers, strict=True) if own[0].tokens]
    return {name: pieces for name, pieces in found.items() if pieces}


def divergence_rows(start: Any, now: Any, pieces: PiecesByName) -> Iterator[Row]:
    """Measure the divergence on each text."""
    for name, sums in divergence_sums(start, now, pieces).items():
        nats, tokens = zip(*sums, strict=True)
        ratio = ratio_of_sums(nats, tokens)
        assert ratio is not None  # every piece has tokens
        yield _ratio_row("divergence", name, sum(tokens), ratio)


def divergence_sums(start: Any, now: Any, pieces: PiecesByName) -> Mapping[str, list[tuple[float, int]]]:
    """Return the sum of KL(start || now) over the tokens of each piece in nats, and how many tokens these are, by name of the text."""
    return {name: [(sum(each), len(each)) for each in token_divergence(start, now, own)] for name, own in pieces.items()}


def _ratio_row(part: str, name: str, n: int, ratio: tuple[float, float, float]) -> Row:
    return {"part": part, "name": name, "n": n, "value": ratio[0], "low": ratio[1], "high": ratio[2]}
