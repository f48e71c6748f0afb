"""What prefixes have behind them: a prompt its place among those opened with it, a longer one the keys and values of what was drawn.

Only what the kernels keep (`etude.engine.blocks`) can be gone on with from several batches, or from what was drawn; of others nothing is
known here, and they are computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Path, beginning
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
    """What a prefix with own tokens has behind it: the keys and values of all its tokens but the last."""

    path: Path | None
    """None: not kept, and computed anew when it is extended."""


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
    path = prefix.cached.path if isinstance(prefix.cached, Drawn) else None
    kept = Drawn(beginning(path, len(tokens) - 1) if path else None)
    return Prefix(tokens, prefix.policy_version, prefix.own_logprobs[:num_own_tokens], cached=kept)


def join(forward: Forward, prefixes: Sequence[Prefix], n: int) -> tuple[Context, torch.Tensor, np.ndarray, int]:
    """Rows that continue prefixes with paths by up to `n` tokens, each distinct one once; the logits [B, V] of what follows them; the row
    of each prefix; and how many tokens were computed: the last of each that has own ones, whose logits were not kept.
    """
    distinct = {prefix.tokens: prefix for prefix in prefixes}
    ordered = sorted(distinct.values(), key=lambda prefix: isinstance(prefix.cached, Row))  # those with own tokens first
    number = {prefix.tokens: row for row, prefix in enumerate(ordered)}
    count = sum(isinstance(prefix.cached, Drawn) for prefix in ordered)
    joined = BlockPrompts.of(forward, [path_of(prefix) for prefix in ordered])
    context = BlockContext(joined, torch.arange(count), joined.blocks.beside(max(len(prefixes), len(ordered)), n))
    logits = [context.next_logits(torch.tensor([prefix.tokens[-1] for prefix in ordered[:count]]))] if count else []
    logits += [prefix.cached.batch.logits_BV[prefix.cached.row][None] for prefix in ordered[count:]]
    context.enter(torch.arange(count, len(ordered)))
    return context, torch.cat(logits), np.array([number[prefix.tokens] for prefix in prefixes]), count
