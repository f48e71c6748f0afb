"""Prefix caching: an opened prompt has a row of its batch's KV cache, an extended prefix has segments generated after it.

Only prefixes kept by the kernels (`etude.engine.blocks`) can be extended from several batches, or after generated tokens. Other prefixes
are computed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from etude.engine.blocks import BlockContext, BlockPrompts, Segment, Segments, last_hidden, length_of, truncate
from etude.engine.completion import Prefix
from etude.engine.protocols import Context, Forward, PrefilledPrompts


@dataclass
class PrefilledBatch:
    """Prompts that were prefilled together, and the logits after them."""

    context: PrefilledPrompts
    logits_BV: torch.Tensor


@dataclass(frozen=True)
class PrefilledRow:
    """One prompt's row in a prefilled batch."""

    batch: PrefilledBatch
    row: int


@dataclass(frozen=True)
class Generated:
    """The keys and values of a prefix with own tokens."""

    path: Segments | None
    """Keys and values of its tokens. Those of the last token are computed when the prefix is first extended, unless it was cut out of a
    longer one. None: not kept, so all are computed again.
    """
    logits_V: torch.Tensor | None = None
    """The logits after it, once it has been extended."""


def is_one_batch(prefixes: Sequence[Prefix]) -> bool:
    """Tell whether these prefixes are prompts that were opened together, without own tokens."""
    batches = {id(prefix.cached.batch) if isinstance(prefix.cached, PrefilledRow) else None for prefix in prefixes}
    return len(batches) == 1 and None not in batches


def segments_of(prefix: Prefix) -> Segments:
    """Return the segments of a prefix's keys and values; empty where they are not kept."""
    if isinstance(prefix.cached, PrefilledRow):
        opened = prefix.cached.batch.context
        return opened.path_of(prefix.cached.row) if isinstance(opened, BlockPrompts) else ()
    return prefix.cached.path or ()


def cut(prefix: Prefix, num_own_tokens: int) -> Prefix:
    """Return the prefix after its first own tokens (at least 1), without computing. Raises ValueError for a number out of range."""
    if not 0 < num_own_tokens <= len(prefix.own_logprobs):
        raise ValueError(f"num_own_tokens must be from 1 to {len(prefix.own_logprobs)}, got {num_own_tokens}")
    tokens = prefix.tokens[: len(prefix.tokens) - len(prefix.own_logprobs) + num_own_tokens]
    if tokens == prefix.tokens:
        return replace(prefix, finish=None)
    path = prefix.cached.path if isinstance(prefix.cached, Generated) else None
    if path and last_hidden(path := truncate(path, len(tokens))) is None:
        path = truncate(path, len(tokens) - 1)
    return Prefix(tokens, prefix.policy_version, prefix.own_logprobs[:num_own_tokens], cached=Generated(path))


def batch_prefixes(forward: Forward, prefixes: Sequence[Prefix], n: int, *, keeps: bool) -> tuple[Context, torch.Tensor, np.ndarray, int]:
    """Copy the segments of prefixes into one batch. Returns one row for each distinct prefix, with room for `n` tokens; the logits [B, V]
    after the rows; the row of each prefix; and the number of computed tokens: the last token of each prefix that is extended for the first
    time, unless it was cut out of a longer one. `keeps`: keep hidden states, so that prefixes can be cut out of the results.
    """
    # sort by what is known: neither last token nor logits, only the last token, both
    distinct = {id(prefix): prefix for prefix in prefixes}.values()
    ordered = sorted(distinct, key=_known)
    number = {id(prefix): row for row, prefix in enumerate(ordered)}
    new = [prefix for prefix in ordered if not _known(prefix)[0]]
    joined = BlockPrompts.of(forward, [segments_of(prefix) for prefix in ordered])
    context = BlockContext(joined, torch.arange(len(new)), joined.blocks.empty_like(max(len(prefixes), len(ordered)), n))
    context.keeps_hidden = keeps
    # logits: compute the last token, or apply the LM head to its hidden state, or take the stored logits
    logits = [context.next_logits(torch.tensor([prefix.tokens[-1] for prefix in new]))] if new else []
    cut_out = [prefix for prefix in ordered if _known(prefix) == (True, False)]
    if cut_out:
        assert forward.head
        logits.append(forward.head(torch.stack([_hidden_of(prefix) for prefix in cut_out])))
    logits += [logits_V[None] for prefix in ordered if (logits_V := _logits_of(prefix)) is not None]
    context.enter(torch.arange(len(new), len(ordered)))
    return context, torch.cat(logits), np.array([number[id(prefix)] for prefix in prefixes]), len(new)


def _known(prefix: Prefix) -> tuple[bool, bool]:
    """Tell whether the last token of a prefix was computed, and whether the logits after it are known."""
    return length_of(segments_of(prefix)) == len(prefix.tokens), _logits_of(prefix) is not None


def _hidden_of(prefix: Prefix) -> torch.Tensor:
    """Return the hidden state [E] at the last token of a prefix that was cut out of a longer one."""
    hidden_E = last_hidden(segments_of(prefix))
    assert hidden_E is not None
    return hidden_E


def deduplicate(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Replace each prefix by the one with the same tokens that has most of them computed."""
    first: dict[tuple[int, tuple[int, ...]], Prefix] = {}
    for prefix in sorted(prefixes, key=_known, reverse=True):
        first.setdefault((len(prefix.own_logprobs), prefix.tokens), prefix)
    return [first[len(prefix.own_logprobs), prefix.tokens] for prefix in prefixes]


def keep_segments(after: Sequence[Prefix], before: Sequence[Prefix], segments: Sequence[Segment], logits: Sequence[torch.Tensor]) -> None:
    """Give each extended prefix the segments of the one `before` it plus its newly computed segment. If that segment begins with the last
    token of `before`, then `before` also keeps this token and the logits after it, so that they are not computed again.
    """
    paths = [segments_of(prefix) for prefix in before]
    for longer, path, segment in zip(after, paths, segments, strict=True):
        longer.cached = Generated((*path, segment))
    for prefix, path, segment, logits_V in zip(before, paths, segments, logits, strict=True):
        is_computed, has_logits = _known(prefix)
        if not has_logits:
            prefix.cached = Generated(path if is_computed else (*path, replace(segment, length=1)), logits_V)


def _logits_of(prefix: Prefix) -> torch.Tensor | None:
    """Return the logits [V] after a prefix, if they are known."""
    cached = prefix.cached
    return cached.batch.logits_BV[cached.row] if isinstance(cached, PrefilledRow) else cached.logits_V
