"""What prefixes have behind them: a prompt its place among those opened with it, a longer one the keys and values of what was drawn.

Only what the kernels keep (`etude.engine.blocks`) can be gone on with from several batches, or from what was drawn; of others nothing is
known here, and they are computed anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Path, Stretch, beginning, last_read, length_of
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
    """Keys and values of its tokens but for the last, whose are computed when it is extended; None: not kept, and all are. They are there
    of the last one too where it was extended, or was cut out of a longer one.
    """
    logits_V: torch.Tensor | None = None
    """Of what follows it, once it was extended."""


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
    if path and last_read(path := beginning(path, len(tokens))) is None:
        path = beginning(path, len(tokens) - 1)
    return Prefix(tokens, prefix.policy_version, prefix.own_logprobs[:num_own_tokens], cached=Drawn(path))


def join(forward: Forward, prefixes: Sequence[Prefix], n: int, *, keeps: bool) -> tuple[Context, torch.Tensor, np.ndarray, int]:
    """Rows that continue prefixes with paths by up to `n` tokens, each distinct one once; the logits [B, V] of what follows them; the row
    of each prefix; and how many tokens were computed: the last of each that has own ones and is extended for the first time, unless it was
    cut out of a longer one. `keeps`: for what is cut out of these.
    """
    distinct = {id(prefix): prefix for prefix in prefixes}.values()
    ordered = sorted(distinct, key=_known)
    number = {id(prefix): row for row, prefix in enumerate(ordered)}
    new = [prefix for prefix in ordered if not _known(prefix)[0]]
    joined = BlockPrompts.of(forward, [path_of(prefix) for prefix in ordered])
    context = BlockContext(joined, torch.arange(len(new)), joined.blocks.beside(max(len(prefixes), len(ordered)), n))
    context.keeps_reads = keeps
    logits = [context.next_logits(torch.tensor([prefix.tokens[-1] for prefix in new]))] if new else []
    parted = [prefix for prefix in ordered if _known(prefix) == (True, False)]
    if parted:
        assert forward.head
        logits.append(forward.head(torch.stack([_read_of(prefix) for prefix in parted])))
    logits += [logits_V[None] for prefix in ordered if (logits_V := _logits_of(prefix)) is not None]
    context.enter(torch.arange(len(new), len(ordered)))
    return context, torch.cat(logits), np.array([number[id(prefix)] for prefix in prefixes]), len(new)


def _known(prefix: Prefix) -> tuple[bool, bool]:
    """Whether its last token was computed, and whether the logits of what follows are kept."""
    return length_of(path_of(prefix)) == len(prefix.tokens), _logits_of(prefix) is not None


def _read_of(prefix: Prefix) -> torch.Tensor:
    """What the LM head reads at the last token of one that was cut out of a longer one."""
    read_E = last_read(path_of(prefix))
    assert read_E is not None
    return read_E


def alike(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """For each the one that stands for all of the same tokens: the one of which most is known."""
    first: dict[tuple[int, tuple[int, ...]], Prefix] = {}
    for prefix in sorted(prefixes, key=_known, reverse=True):
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
        is_computed, has_logits = _known(prefix)
        if not has_logits:
            prefix.cached = Drawn(path if is_computed else (*path, replace(stretch, length=1)), logits_V)


def _logits_of(prefix: Prefix) -> torch.Tensor | None:
    """Of what follows it, where they are known."""
    cached = prefix.cached
    return cached.batch.logits_BV[cached.row] if isinstance(cached, Row) else cached.logits_V
