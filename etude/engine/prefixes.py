"""What prefixes have behind them: a prompt its place among those opened with it, a longer one the keys and values of what was drawn.

Only what the kernels keep (`etude.engine.blocks`) can be gone on with from several batches, or from what was drawn; of others nothing is
known here, and they are computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Path, Stretch, beginning
from etude.engine.completion import Prefix
from etude.engine.context import Context, Forward, Opened


@dataclass
class OpenBatch:
    """Some prompts that were prefilled together, and the logits of what follows them."""

    context: Opened
    logits_BV: torch.Tensor


@dataclass(frozen=True)
class Row:
    """One prompt's place in an open batch."""

    batch: OpenBatch
    row: int


@dataclass(frozen=True)
class Drawn:
    """What a prefix with own tokens has behind it."""

    path: Path | None
    """Keys and values of its tokens but for the last, whose are computed when it is extended; None: not kept, and all are."""
    logits_V: torch.Tensor | None = None
    """Of what follows it, once it was extended; the path has the last token's keys and values then."""


def is_one_batch(prefixes: Sequence[Prefix]) -> bool:
    """Whether these are prompts that were opened together, without own tokens."""
    batches = {id(prefix.cached.batch) if isinstance(prefix.cached, Row) else None for prefix in prefixes}
    return len(batches) == 1 and None not in batches


def path_of(prefix: Prefix) -> Path:
    """What the prefix has behind it; empty where that is not kept."""
    if isinstance(prefix.cached, Row):
        opened = prefix.cached.batch.context
        return opened.path_of(prefix.cached.row) if isinstance(opened, BlockPrompts) else ()
    return prefix.cached.path or ()


def cut(prefix: Prefix, num_own_tokens: int) -> Prefix:
    """The prefix as it was after so many own tokens, one at least, to be extended from there; nothing is computed."""
    if not 0 < num_own_tokens <= len(prefix.own_logprobs):
        raise ValueError(f"num_own_tokens must be from 1 to {len(prefix.own_logprobs)}, got {num_own_tokens}")
    tokens = prefix.tokens[: len(prefix.tokens) - len(prefix.own_logprobs) + num_own_tokens]
    if tokens == prefix.tokens:
        return replace(prefix, finish=None)
    path = prefix.cached.path if isinstance(prefix.cached, Drawn) else None
    kept = Drawn(beginning(path, len(tokens) - 1) if path else None)
    return Prefix(tokens, prefix.policy_version, prefix.own_logprobs[:num_own_tokens], cached=kept)


def join(forward: Forward, prefixes: Sequence[Prefix], n: int) -> tuple[Context, torch.Tensor, np.ndarray, int]:
    """Rows that continue prefixes with paths by up to `n` tokens, each distinct one once; the logits [B, V] of what follows them; the row
    of each prefix; and how many tokens were computed: the last of each that has own ones and is extended for the first time.
    """
    distinct = {id(prefix): prefix for prefix in prefixes}.values()
    new = [prefix for prefix in distinct if _logits_of(prefix) is None]
    ordered = [*new, *(prefix for prefix in distinct if _logits_of(prefix) is not None)]
    number = {id(prefix): row for row, prefix in enumerate(ordered)}
    joined = BlockPrompts.of(forward, [path_of(prefix) for prefix in ordered])
    context = BlockContext(joined, torch.arange(len(new)), joined.blocks.beside(max(len(prefixes), len(ordered)), n))
    logits = [context.next_logits(torch.tensor([prefix.tokens[-1] for prefix in new]))] if new else []
    logits += [logits_V[None] for prefix in ordered if (logits_V := _logits_of(prefix)) is not None]
    context.enter(torch.arange(len(new), len(ordered)))
    return context, torch.cat(logits), np.array([number[id(prefix)] for prefix in prefixes]), len(new)


def alike(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """For each the one that stands for all of the same tokens: one whose logits are known, if there is such."""
    first: dict[tuple[int, tuple[int, ...]], Prefix] = {}
    for prefix in sorted(prefixes, key=lambda prefix: _logits_of(prefix) is None):
        first.setdefault((len(prefix.own_logprobs), prefix.tokens), prefix)
    return [first[len(prefix.own_logprobs), prefix.tokens] for prefix in prefixes]


def keep(after: Sequence[Prefix], before: Sequence[Prefix], stretches: Sequence[Stretch], logits: Sequence[torch.Tensor]) -> None:
    """What each has behind it that was drawn behind `before`: that, and the stretch that was computed for it. Where this begins with the
    last token of `before`, that is kept there too, with the logits of what follows it, so that it is not computed again.
    """
    paths = [path_of(prefix) for prefix in before]
    for drawn, path, stretch in zip(after, paths, stretches, strict=True):
        drawn.cached = Drawn((*path, stretch))
    for prefix, path, stretch, logits_V in zip(before, paths, stretches, logits, strict=True):
        if _logits_of(prefix) is None:
            prefix.cached = Drawn((*path, replace(stretch, length=1)), logits_V)


def _logits_of(prefix: Prefix) -> torch.Tensor | None:
    """Of what follows it, where they are known."""
    cached = prefix.cached
    return cached.batch.logits_BV[cached.row] if isinstance(cached, Row) else cached.logits_V
