"""A layer of transformers' cache that keeps what a policy keeps.

transformers gives a layer new keys and values, and then the attention function the queries: `update` only takes them, and `attend`, which
the attention function calls, lets the queries read, stores what is new and drops what is too much. Rows are computed each for itself while
a prompt is read, without their padding, and together while one token a row is generated.

What the layer says of its length is what it has seen, so that positions stay what they would be; masks are its own affair.

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, T slots, D width.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import CacheLayerMixin

from etude.errors import UserError
from etude.longcontext import attention
from etude.longcontext.held import Held
from etude.longcontext.moments import Moments
from etude.longcontext.policy import Policy
from etude.longcontext.rotation import Rotation
from etude.longcontext.slots import Segment, Slots


class Forward(Protocol):
    """What a layer is told of the forward pass that it is part of."""

    policy: Policy
    rotation: Rotation
    pending: "SlotLayer | None"
    """The layer that took keys and waits for the queries."""
    is_real_BQ: np.ndarray
    """Whether a new token is one, not padding."""
    turned_BQ: np.ndarray
    """The position by which it is turned."""

    def check_open(self) -> None: ...


class SlotLayer(CacheLayerMixin):
    """One full-attention layer."""

    is_sliding = False
    is_croppable = True
    supports_early_init = False

    def __init__(self, forward: Forward, number: int, layers: int) -> None:
        super().__init__()
        self.forward, self.number, self.layers = forward, number, layers
        self.width = 0
        """Tokens so far, padding and dropped ones too."""
        self.seen_B = np.zeros(0, dtype=np.int64)
        """Of each row, without padding."""
        self.slots: Slots | None = None
        self.queries_BNWD: torch.Tensor | None = None
        """Of the last tokens, rotated; a row with fewer has them at the end."""
        self.moments_B: list[Moments] = []
        self.fresh_tokens = 0
        """Generated since something was last dropped."""

    # ------------------------------------------------------------------ what transformers asks

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.seen_B, self.is_initialized = np.zeros(len(key_states), dtype=np.int64), True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Take what is new, for the queries that come next; returned as it is."""
        self.forward.check_open()
        if self.forward.pending:
            raise UserError(
                "this model's attention does not go through transformers' attention functions, so what it reads can't be chosen: take a "
                "model that supports attn_implementation='sdpa'"
            )
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values, self.forward.pending = key_states.detach(), value_states.detach(), self
        return key_states, value_states

    def get_seq_length(self) -> int:
        return self.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a mask that nobody reads: of the new tokens alone, so that it stays small."""
        return query_length, self.width

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.__init__(self.forward, self.number, self.layers)  # type: ignore[misc]

    def offload(self) -> None:
        raise UserError("a cache with a policy can't be offloaded by transformers: leave offloading out")

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self.slots:
            rows = beam_idx.tolist()
            self.slots, self.seen_B = self.slots.select(rows), self.seen_B[rows]
            self.moments_B = [self.moments_B[row] for row in rows] if self.moments_B else []
            if self.queries_BNWD is not None:
                self.queries_BNWD = self.queries_BNWD[beam_idx.to(self.queries_BNWD.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.reorder_cache(torch.arange(len(self.seen_B)).repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self.reorder_cache(torch.arange(len(self.seen_B))[indices])

    def crop(self, tokens_to_remove: int) -> None:
        """Take so many last tokens (a number below 0) back. What was dropped for them stays away."""
        removed = abs(tokens_to_remove)
        if not self.slots or not removed:
            return
        score = self.forward.policy.score
        if score.window or score.keeps_moments or score.sums_attention:
            raise UserError("this policy goes by queries, which can't be taken back: generate without drafts, or go by keys alone")
        self.seen_B, self.width = self.seen_B - removed, self.width - removed
        rows = [self.slots.row(row) for row in range(self.slots.rows)]
        self.slots = Slots([[part.before(seen) for part in row] for row, seen in zip(rows, self.seen_B.tolist(), strict=True)])

    # ------------------------------------------------------------------ what the attention function asks

    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        """Hold what a layer of a full cache held; what is too much goes with the next tokens."""
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.width = keys_BHTD.shape[2]
        rows = []
        for row, (keys_HTD, values_HTD) in enumerate(zip(keys_BHTD, values_BHTD, strict=True)):
            own = slice(None) if is_real_BT is None else _places(is_real_BT[row, : self.width].bool().cpu().numpy())
            rows.append(self._with_new(row, keys_HTD[:, own], values_HTD[:, own]))
            self.seen_B[row] = len(rows[row][0])
        self.slots = Slots(rows)

    @property
    def bytes(self) -> int:
        """What is allocated for the layer."""
        stores = [] if self.queries_BNWD is None else [self.queries_BNWD]
        stores += [part for moments in self.moments_B for part in (moments.sum_ND, moments.squares_NDD)]
        return (self.slots.bytes if self.slots else 0) + sum(store.untyped_storage().nbytes() for store in stores)

    def attend(self, module: Any, queries_BNQD: torch.Tensor, scale: float) -> torch.Tensor:
        """What the queries of the new tokens read, [B, Q, N, D]; padding reads nothing: 0."""
        is_real_BQ = self.forward.is_real_BQ
        if self.slots and queries_BNQD.shape[2] == 1:
            read_BQND = self._generate(module, queries_BNQD, is_real_BQ[:, 0], scale)
        else:
            read_BQND = self._read(module, queries_BNQD, is_real_BQ, scale)
        self.width += queries_BNQD.shape[2]
        self.keys = self.values = None
        return read_BQND

    def _read(self, module: Any, queries_BNQD: torch.Tensor, is_real_BQ: np.ndarray, scale: float) -> torch.Tensor:
        """More of the text: each row for itself, and what is too much goes at once."""
        assert self.keys is not None and self.values is not None
        rows, heads = self.keys.shape[:2]
        read_BQND = queries_BNQD.new_zeros(rows, queries_BNQD.shape[2], queries_BNQD.shape[1], self.values.shape[-1])
        kept: list[list[Segment]] = []
        for row in range(rows):
            own = _places(is_real_BQ[row])
            queries_NQD, keys_HQD, values_HQD = (states[row][:, own] for states in (queries_BNQD, self.keys, self.values))
            segments = self._with_new(row, keys_HQD, values_HQD)
            if not is_real_BQ[row].any():
                kept.append(segments)
                continue
            queries_HRQD = queries_NQD.unflatten(0, (heads, -1))
            parts = [
                attention.causal(own_RQD, part.keys_TD, part.values_TD, scale) for own_RQD, part in zip(queries_HRQD, segments, strict=True)
            ]
            read_BQND[row, own] = torch.cat(parts).transpose(0, 1)
            if self.forward.policy.score.sums_attention:
                for own_RQD, part in zip(queries_HRQD, segments, strict=True):
                    part.mass_T.add_(attention.summed(own_RQD, part.keys_TD, scale))
            self._remember(module, row, queries_NQD)
            self.seen_B[row] += queries_NQD.shape[1]
            kept.append(self._kept(module, row, segments, scale))
        self.slots, self.fresh_tokens = Slots(kept), 0
        return read_BQND

    def _with_new(self, row: int, keys_HQD: torch.Tensor, values_HQD: torch.Tensor) -> list[Segment]:
        """What is kept of a row with what is new behind it."""
        first = int(self.seen_B[row])
        position_Q = torch.arange(first, first + keys_HQD.shape[1], dtype=torch.int32, device=keys_HQD.device)
        new = [
            Segment(keys_QD, values_QD, position_Q, torch.zeros(len(position_Q), device=keys_HQD.device))
            for keys_QD, values_QD in zip(keys_HQD, values_HQD, strict=True)
        ]
        return [old.then(each) for old, each in zip(self.slots.row(row), new, strict=True)] if self.slots else new

    def _generate(self, module: Any, queries_BN1D: torch.Tensor, is_real_B: np.ndarray, scale: float) -> torch.Tensor:
        """A token a row: all together, and what is too much goes now and then."""
        assert self.keys is not None and self.values is not None and self.slots is not None
        if self.slots.is_full:
            self.slots = self.slots.with_room()
        self.slots.append(self.keys[:, :, 0], self.values[:, :, 0], self.seen_B, is_real_B)
        self.seen_B = self.seen_B + is_real_B
        queries_BHRD = queries_BN1D[:, :, 0].unflatten(1, (self.slots.heads, -1))
        read_BHRD = self._over_slots(queries_BHRD, scale)
        if not is_real_B.all():
            read_BHRD[torch.from_numpy(~is_real_B)] = 0
        if self.forward.policy.score.window or self.forward.policy.score.keeps_moments:
            for row in np.flatnonzero(is_real_B).tolist():
                self._remember(module, row, queries_BN1D[row])
        self.fresh_tokens += 1
        every = self.forward.policy.every_tokens
        if every and self.fresh_tokens >= every and not self.forward.policy.keeps_all:
            rows = range(self.slots.rows)
            self.slots, self.fresh_tokens = Slots([self._kept(module, row, self.slots.row(row), scale) for row in rows]), 0
        return read_BHRD.flatten(1, 2)[:, None]

    def _over_slots(self, queries_BHRD: torch.Tensor, scale: float) -> torch.Tensor:
        slots = self.slots
        assert slots is not None
        if slots.is_rectangle and not self.forward.policy.score.sums_attention:
            longest = int(slots.count_BH.max())
            is_there = None
            if (slots.count_BH < longest).any():
                count_BH11 = torch.from_numpy(slots.count_BH).to(queries_BHRD.device)[:, :, None, None]
                is_there = torch.arange(longest, device=queries_BHRD.device) < count_BH11
            keys_BHTD, values_BHTD = slots.rectangle(slots.keys_SD), slots.rectangle(slots.values_SD)
            return attention.of_rectangle(queries_BHRD, keys_BHTD, values_BHTD, is_there, scale)
        read_BHRD = queries_BHRD.new_zeros(*queries_BHRD.shape[:3], slots.values_SD.shape[-1])
        for row in range(slots.rows):
            for head, part in enumerate(slots.row(row)):
                if len(part):
                    read_RT = attention.weights(queries_BHRD[row, head], part.keys_TD, scale)
                    read_BHRD[row, head] = read_RT.to(part.values_TD.dtype) @ part.values_TD
                    if self.forward.policy.score.sums_attention:
                        part.mass_T.add_(read_RT.mean(0))
        return read_BHRD

    # ------------------------------------------------------------------ what goes

    @torch.no_grad()
    def _kept(self, module: Any, row: int, segments: Sequence[Segment], scale: float) -> list[Segment]:
        policy, seen = self.forward.policy, int(self.seen_B[row])
        budget = policy.budget(seen, self.number, self.layers)
        if sum(map(len, segments)) <= budget * len(segments) and (policy.by_head or max(map(len, segments)) <= budget):
            return list(segments)
        held = Held.of(
            segments,
            queries_HRQD=self._last_queries(row, segments),
            moments=self.moments_B[row] if self.moments_B else None,
            seen=seen,
            budget=budget,
            scale=scale,
            layer=self.number,
            module=module,
            rotation=self.forward.rotation,
        )
        return [segment.at(index_K) for segment, index_K in zip(segments, policy.kept(held), strict=True)]

    # ------------------------------------------------------------------ queries that scores go by

    def _remember(self, module: Any, row: int, queries_NQD: torch.Tensor) -> None:
        """What the score needs of a row's new queries."""
        score, rows = self.forward.policy.score, len(self.seen_B)
        queries_NQD = queries_NQD.detach()
        if score.keeps_moments:
            if not self.moments_B:
                self.moments_B = [Moments.of(queries_NQD[:, :0])] * rows
            turned_Q = torch.from_numpy(self.forward.turned_BQ[row][self.forward.is_real_BQ[row]])
            before_NQD = self.forward.rotation.taken_back(module, queries_NQD.float(), turned_Q)
            self.moments_B[row] = self.moments_B[row].plus(Moments.of(before_NQD))
        if score.window:
            if self.queries_BNWD is None:
                self.queries_BNWD = queries_NQD.new_zeros(rows, len(queries_NQD), score.window, queries_NQD.shape[-1])
            last_NQD = queries_NQD[:, -score.window :]
            self.queries_BNWD[row] = torch.cat([self.queries_BNWD[row, :, last_NQD.shape[1] :], last_NQD], 1)

    def _last_queries(self, row: int, segments: Sequence[Segment]) -> torch.Tensor:
        """Of a row's last tokens, [H, R, Q, D]; none for a score that asks for none."""
        if self.queries_BNWD is None:
            return segments[0].keys_TD.new_zeros(len(segments), 0, 0, segments[0].keys_TD.shape[-1])
        there = min(int(self.seen_B[row]), self.queries_BNWD.shape[2])
        return self.queries_BNWD[row, :, self.queries_BNWD.shape[2] - there :].unflatten(0, (len(segments), -1))


def _places(is_real_Q: np.ndarray) -> slice | torch.Tensor:
    """Where the tokens stand that are no padding, as a stretch where they are one."""
    found = np.flatnonzero(is_real_Q)
    if len(found) and found[-1] - found[0] + 1 == len(found):
        return slice(int(found[0]), int(found[-1]) + 1)
    return torch.from_numpy(found)
