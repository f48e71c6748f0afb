"""Attention of one key head over its cache with torch operations, and the attention that each slot receives.

Shapes: B rows, H key/value heads, R query heads that share one, Q queries, T slots, D width.
"""

from collections.abc import Iterator

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from etude.engine.attention import flash, is_available
from etude.kernels.received import received_for

_BLOCK_QUERIES = 512
"""Maximum number of queries whose mask or products are in memory at a time."""

_BLOCK_WEIGHTS = 2**20
"""Maximum number of attention weights in memory at a time on a CPU, to stay in a core's cache."""


def causal(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float) -> torch.Tensor:
    """Return causal attention [R, Q, D] of the last Q of T tokens."""
    heads, length, _ = queries_RQD.shape
    before = len(keys_TD) - length
    if before and _by_flash(queries_RQD, keys_TD, values_TD):
        return with_normaliser(queries_RQD, keys_TD, values_TD, scale)[0]
    keys, values = (states[None, None].expand(1, heads, -1, -1) for states in (keys_TD, values_TD))
    if not before:
        return scaled_dot_product_attention(queries_RQD[None], keys, values, is_causal=True, scale=scale)[0]
    read = []
    for first in range(0, length, _BLOCK_QUERIES):
        own = queries_RQD[None, :, first : first + _BLOCK_QUERIES]
        end = before + first + own.shape[2]
        seen_QT = _seen(own.shape[2], end, own.device)
        read.append(scaled_dot_product_attention(own, keys[:, :, :end], values[:, :, :end], attn_mask=seen_QT, scale=scale)[0])
    return torch.cat(read, 1)


def with_normaliser(
    queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result of `causal`, and log Σ exp of each query's scores [R, Q]."""
    heads, length, _ = queries_RQD.shape
    if not _by_flash(queries_RQD, keys_TD, values_TD):
        parts = [scores_RQT.logsumexp(-1) for scores_RQT in _scores_by_block(queries_RQD, keys_TD, scale)]
        return causal(queries_RQD, keys_TD, values_TD, scale), torch.cat(parts, 1)
    before = len(keys_TD) - length
    keys, values = (states[None, None].expand(1, heads, -1, -1) for states in (keys_TD, values_TD))
    read, normaliser = flash(queries_RQD[None], keys[:, :, before:], values[:, :, before:], is_causal=True, scale=scale)
    if before:  # all earlier tokens are seen; a mask would take twice as long
        of_before, its = flash(queries_RQD[None], keys[:, :, :before], values[:, :, :before], scale=scale)
        exact, share = normaliser.dtype, torch.sigmoid(normaliser - its)[..., None]  # in half precision a small share would be lost
        read = torch.lerp(of_before.to(exact), read.to(exact), share).to(read.dtype)
        normaliser = torch.logaddexp(normaliser, its)
    return read[0], normaliser[0]


def _by_flash(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor) -> bool:
    """Tell whether `flash`, which also returns normalisers, can be used."""
    is_one = queries_RQD.dtype == keys_TD.dtype == values_TD.dtype and keys_TD.shape == values_TD.shape
    return is_one and is_available(keys_TD.device) and not (torch.is_grad_enabled() and queries_RQD.requires_grad)


def with_sums(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result of `causal`, and the attention [T] that each slot receives, summed over queries and averaged over query heads."""
    heads, received = len(queries_RQD), received_for(queries_RQD, keys_TD)
    if received and _by_flash(queries_RQD, keys_TD, values_TD):
        read_RQD, normaliser_RQ = with_normaliser(queries_RQD, keys_TD, values_TD, scale)
        return read_RQD, received(queries_RQD, keys_TD, normaliser_RQ, len(keys_TD), scale, True) / heads
    found_T = torch.zeros(len(keys_TD), dtype=torch.float32, device=keys_TD.device)
    for scores_RQT in _scores_by_block(queries_RQD, keys_TD, scale):
        found_T[: scores_RQT.shape[2]] += scores_RQT.softmax(-1).sum(1).mean(0)
    return causal(queries_RQD, keys_TD, values_TD, scale), found_T


def with_strongest(
    queries_RQD: torch.Tensor, keys_TD: torch.Tensor, values_TD: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result of `causal`, and the largest attention [T - Q] from any query and head to each slot before the last Q."""
    read_RQD, normaliser_RQ = with_normaliser(queries_RQD, keys_TD, values_TD, scale)
    length, received = queries_RQD.shape[1], received_for(queries_RQD, keys_TD)
    if received:
        return read_RQD, received(queries_RQD, keys_TD, normaliser_RQ, len(keys_TD) - length, scale, False)
    with_ones = pad(keys_TD[: len(keys_TD) - length].float(), (0, 1), value=1.0)
    found_T = torch.full((len(with_ones),), -torch.inf, dtype=torch.float32, device=keys_TD.device)
    for own in _blocks(queries_RQD, keys_TD):
        less_normaliser = torch.cat([queries_RQD[:, own].float() * scale, -normaliser_RQ[:, own, None].float()], -1)
        found_T = torch.maximum(found_T, (less_normaliser.flatten(0, 1) @ with_ones.T).amax(0))
    return read_RQD, found_T.exp()


def _scores_by_block(queries_RQD: torch.Tensor, keys_TD: torch.Tensor, scale: float) -> Iterator[torch.Tensor]:
    """Yield the scores [R, Q, T] of blocks of queries, with T up to the last query; -inf where a key is after the query."""
    keys_TD = keys_TD.float()
    for block in _blocks(queries_RQD, keys_TD):
        own = queries_RQD[:, block].float() * scale
        end = len(keys_TD) - queries_RQD.shape[1] + block.start + own.shape[1]
        scores_RQT = own @ keys_TD[:end].T
        among_themselves = scores_RQT[:, :, end - own.shape[1] :]  # all earlier keys are seen
        among_themselves.masked_fill_(~_seen(own.shape[1], own.shape[1], own.device), -torch.inf)
        yield scores_RQT


def _blocks(queries_RQD: torch.Tensor, keys_TD: torch.Tensor) -> list[slice]:
    """Return the blocks of queries whose scores are computed together."""
    heads, length, _ = queries_RQD.shape
    on_cpu = max(16, _BLOCK_WEIGHTS // (heads * len(keys_TD)))
    at_once = min(_BLOCK_QUERIES, on_cpu) if keys_TD.device.type == "cpu" else _BLOCK_QUERIES
    return [slice(first, first + at_once) for first in range(0, length, at_once)]


def _seen(length: int, end: int, device: torch.device) -> torch.Tensor:
    """Return the causal mask of the last `length` of `end` tokens."""
    return torch.ones(length, end, dtype=torch.bool, device=device).tril(end - length)


def of_rectangle(
    queries_BHRD: torch.Tensor, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_there_BH1T: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Return attention [B, H, R, D] of one token of each row. Query heads that share keys are passed as queries of one head."""
    return scaled_dot_product_attention(queries_BHRD, keys_BHTD, values_BHTD, attn_mask=is_there_BH1T, scale=scale)


def weights(queries_RD: torch.Tensor, keys_TD: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the attention weights [..., R, T] of one query for each head."""
    return (queries_RD.float() @ keys_TD.float().mT * scale).softmax(-1)
