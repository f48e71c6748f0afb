"""Data mixture: fixes in advance which pieces of which source each training step reads.

A stage reads `tokens` in steps of about `tokens_per_step`, from its sources in proportion to their weights. The next piece is always from
the source that is furthest below its share,

    argmax over sources of  weight · (tokens read so far + the piece's)  -  tokens read of the source

so the shares are right within one piece at every step, for any lengths of pieces. A source gives all its pieces, in an order of its own,
before it repeats any. The schedule depends only on the sizes, the weights and the key, so a resumed run computes the same one.

Documents are cut into windows. The first token of a window is predicted from the token before it, which precedes the window as context
without loss; the first token of a document is predicted from the tokenizer's end of text. So every token of a document is trained on
exactly once in a pass. Windows are separate examples, so nothing attends from one document to another.

Identity: one source, or weights of 0 for all but one, gives plain passes over it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from etude.errors import UserError, at_least
from etude.randomness import seed_for

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of a source, by its index."""

    source: str
    place: int


@dataclass(frozen=True)
class StudyStage:
    """Settings of a training stage with its own mixture weights."""

    name: str
    weights: Mapping[str, float]
    """The weight of each source, its share of the tokens; they need not sum to 1."""
    tokens: int
    """Tokens to train on in the whole stage, within a step."""

    def check(self, name: str, sources: Iterable[str]) -> None:
        """Raise UserError for an unknown source and for weights that are negative or all 0."""
        known = set(sources)
        at_least(f"{name}.tokens", self.tokens, 1)
        for source, weight in self.weights.items():
            if source not in known:
                raise UserError(f"{name}.weights: {source!r} is no source: there are {', '.join(sorted(known))}")
            if weight < 0:
                raise UserError(f"{name}.weights: {source} must be 0 or more, got {weight}")
        if not any(self.weights.values()):
            raise UserError(f"{name}.weights must have one above 0, got {dict(self.weights)}")


def windows(documents: Iterable[Ids], window_tokens: int, end_of_text: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield (the token before, the window) for every document; a document ends with the end of text.

    >>> list(windows([(5, 6, 7), (8,)], 2, 0))
    [((0,), (5, 6)), ((6,), (7, 0)), ((0,), (8, 0))]
    """
    for document in documents:
        whole = (end_of_text, *document, end_of_text)
        for start in range(1, len(whole), window_tokens):
            yield whole[start - 1 : start], whole[start : start + window_tokens]


def schedule(sizes: Mapping[str, Sequence[int]], stage: StudyStage, tokens_per_step: int, key: int) -> list[list[Piece]]:
    """Return the pieces of every step; `sizes` holds the tokens of each source's pieces.

    A step ends with the piece that fills it. Raises UserError for a source without pieces.
    """
    weights = {name: weight for name, weight in stage.weights.items() if weight > 0}
    for name in weights:
        if not len(sizes[name]):
            raise UserError(f"stage {stage.name}: source {name} is empty: give it text, or the weight 0")
    total = sum(weights.values())
    orders = {name: _endless(len(sizes[name]), seed_for(key, stage.name, name)) for name in weights}
    upcoming = {name: next(order) for name, order in orders.items()}
    read = dict.fromkeys(weights, 0)
    steps: list[list[Piece]] = [[]]
    in_step = 0
    while sum(read.values()) < stage.tokens:
        if in_step >= tokens_per_step:
            steps.append([])
            in_step = 0
        so_far = sum(read.values())
        lacking = {name: weight / total * (so_far + sizes[name][upcoming[name]]) - read[name] for name, weight in weights.items()}
        name = max(lacking, key=lambda each: (lacking[each], each))
        steps[-1].append(Piece(name, upcoming[name]))
        size = sizes[name][upcoming[name]]
        read[name] += size
        in_step += size
        upcoming[name] = next(orders[name])
    return steps


def _endless(count: int, key: int) -> Iterator[int]:
    """Yield all indices without end, in a new order for every pass."""
    for number in range(2**31):
        yield from map(int, np.random.default_rng(seed_for(key, number)).permutation(count))


def passes(steps: Sequence[Sequence[Piece]], sizes: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the number of passes of a schedule over each source, by tokens."""
    read = dict.fromkeys(sizes, 0)
    for step in steps:
        for piece in step:
            read[piece.source] += sizes[piece.source][piece.place]
    return {name: tokens / sum(sizes[name]) if len(sizes[name]) else 0.0 for name, tokens in read.items()}
