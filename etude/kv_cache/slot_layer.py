"""A layer that keeps what a policy keeps, in slots, and drops the rest.

Of a prompt what is too much goes as soon as it was read; of what is generated, now and then. What a score needs of the queries is kept
beside it.

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, W queries, T slots, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from etude.errors import UserError
from etude.kernels.compiled import WIDTH
from etude.kernels.decoding import kernels_for
from etude.kernels.tables import SlotTable
from etude.kv_cache import attention
from etude.kv_cache.held import Held
from etude.kv_cache.layer import ContextLayer, Forward, New, places
from etude.kv_cache.moments import Moments
from etude.kv_cache.policy import Policy
from etude.kv_cache.slots import ROOM_TOKENS, Segment, Slots

ReadWith = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


class SlotLayer(ContextLayer):
    """Under a policy."""

    def __init__(self, forward: Forward, policy: Policy, number: int, layers: int) -> None:
        super().__init__(forward, number, layers, policy.sparse)
        self.policy = policy
        self.slots: Slots | None = None
        self.queries_BNWD: torch.Tensor | None = None
        """Of the last tokens, rotated; a row with fewer has them at the end."""
        self.remembered_B = np.zeros(0, dtype=np.int64)
        """How many of each row."""
        self.moments_B: list[Moments] = []
        self.fresh_tokens = 0
        """Generated since something was last dropped."""
        self.room_tokens = ROOM_TOKENS
        """That will be generated at most, where that is known."""
        self._read_rows: list[list[Segment]] = []

    def reset(self) -> None:
        self.__init__(self.forward, self.policy, self.number, self.layers)  # type: ignore[misc]

    @property
    def bytes(self) -> int:
        stores = [] if self.queries_BNWD is None else [self.queries_BNWD]
        stores += [part for moments in self.moments_B for part in (moments.sum_ND, moments.squares_NDD)]
        return (self.slots.bytes if self.slots else 0) + sum(store.untyped_storage().nbytes() for store in stores)

    def select(self, rows: list[int]) -> None:
        assert self.slots
        self.slots = self.slots.select(rows, room_tokens=self._spare_tokens)
        self.moments_B = [self.moments_B[row] for row in rows] if self.moments_B else []
        if self.queries_BNWD is not None:
            self.queries_BNWD, self.remembered_B = self.queries_BNWD[rows], self.remembered_B[rows]

    def take_back(self, tokens: int) -> None:
        score = self.policy.score
        assert self.slots
        if not self.policy.keeps_all and (score.window or score.moments_from is not None or score.sums_attention):
            raise UserError("this policy goes by queries, which can't be taken back: go on with a copy of the cache that was made before")
        self.seen_B, self.width = self.seen_B - tokens, self.width - tokens
        self.slots.end_at(self.seen_B)
        if tokens > ROOM_TOKENS:  # fewer stay to be filled again
            self.slots = self.slots.with_room()

    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.width = keys_BHTD.shape[2]
        rows = []
        for row, (keys_HTD, values_HTD) in enumerate(zip(keys_BHTD, values_BHTD, strict=True)):
            own = slice(None) if is_real_BT is None else places(is_real_BT[row, : self.width].bool().cpu().numpy())
            rows.append(self._with_new(row, keys_HTD[:, own], values_HTD[:, own]))
            self.seen_B[row] = len(rows[row][0])
        self.slots = self.in_slots(rows)

    def in_slots(self, segments_BH: Sequence[Sequence[Segment]]) -> Slots:
        """A copy with room to spare."""
        return Slots(segments_BH, room_tokens=self._spare_tokens)

    @property
    def _spare_tokens(self) -> int:
        """Room for what comes before something is dropped again, where it is, and no more than will come."""
        until_drop = self.policy.every_tokens if self.policy.drops_while_generating else ROOM_TOKENS
        return min(ROOM_TOKENS, until_drop, max(1, self.room_tokens))

    @property
    def takes_kernels(self) -> bool:
        """Whether a kernel can run a decoding step over what it holds."""
        if self.slots is None or self.policy.rerotate or self.policy.score.moments_from is not None:
            return False
        return _fits(self.slots)

    # ------------------------------------------------------------------ a prompt

    def read(self, row: int, new: New) -> torch.Tensor:
        new = self._within(row, new) if self.policy.rerotate and len(new) else new
        segments = self._with_new(row, new.keys_HQD, new.values_HQD)
        self._read_rows = [] if row == 0 else self._read_rows  # a new list: copies of the layer have the old one
        if self.forward.is_replaying:
            return self._replay(row, new, segments)
        if not len(new):
            self._read_rows.append(segments)
            return new.queries_NQD
        read = []
        for queries_RQD, own in zip(new.queries_HRQD, segments, strict=True):
            if self.policy.score.sums_attention:
                read_RQD, mass_T = self._read_with(attention.with_sums, queries_RQD, own)
                own.mass_T.add_(mass_T)
            else:
                read_RQD = self.causal(queries_RQD, own.keys_TD, own.values_TD)
            read.append(read_RQD)
        self._remember(row, new.queries_NQD)
        self.seen_B[row] += len(new)
        self._read_rows.append(segments if self.policy.score.replays else self._kept(row, segments))
        return torch.cat(read)

    def _read_with(self, how: ReadWith, queries_RQD: torch.Tensor, own: Segment) -> tuple[torch.Tensor, torch.Tensor]:
        """What the queries read, and what the slots have of it; gradients go through the first alone."""
        read_RQD, of_slots = how(queries_RQD.detach(), own.keys_TD, own.values_TD, self.scale)
        needs_own = self.sparse or (torch.is_grad_enabled() and queries_RQD.requires_grad)
        return (self.causal(queries_RQD, own.keys_TD, own.values_TD) if needs_own else read_RQD), of_slots

    @torch.no_grad()
    def _replay(self, row: int, new: New, segments: Sequence[Segment]) -> torch.Tensor:
        """What the queries read of what is kept and of themselves; the slots' mass is the largest attention that any of them gave."""
        assert self.slots is not None
        read = [new.values_HQD[:0]]
        for queries_RQD, own, kept in zip(new.queries_HRQD, segments, self.slots.row(row), strict=True):
            if len(new):
                read_RQD, mass_T = self._read_with(attention.with_strongest, queries_RQD, own)
                read.append(read_RQD)
                kept.mass_T.copy_(torch.maximum(kept.mass_T, mass_T))
        return torch.cat(read) if len(new) else new.queries_NQD

    def finish(self) -> None:
        self.slots, self._read_rows, self.fresh_tokens = self.in_slots(self._read_rows), [], 0

    def _with_new(self, row: int, keys_HQD: torch.Tensor, values_HQD: torch.Tensor) -> list[Segment]:
        """What is kept of a row with what is new behind it."""
        first = int(self.seen_B[row])
        position_Q = torch.arange(first, first + keys_HQD.shape[1], dtype=torch.int32, device=keys_HQD.device)
        new = [
            Segment(keys_QD, values_QD, position_Q, torch.zeros(len(position_Q), dtype=torch.float32, device=keys_HQD.device))
            for keys_QD, values_QD in zip(keys_HQD, values_HQD, strict=True)
        ]
        return [old.then(each) for old, each in zip(self.slots.row(row), new, strict=True)] if self.slots else new

    # ------------------------------------------------------------------ token by token

    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        assert self.keys is not None and self.values is not None and self.slots is not None
        self.make_room()
        queries_BHRD, keys_BHD = queries_BND.unflatten(1, (self.slots.heads, -1)), self.keys[:, :, 0]
        if self.policy.rerotate:
            queries_BHRD, keys_BHD = self._behind_slots(self.slots, queries_BHRD, keys_BHD)
            queries_BND = queries_BHRD.flatten(1, 2)
        self.slots.append(keys_BHD, self.values[:, :, 0], self.seen_B, is_real_B)
        self.seen_B = self.seen_B + is_real_B
        read_BHRD = self._over_slots(self.slots, queries_BHRD)
        if not is_real_B.all():
            read_BHRD[torch.from_numpy(~is_real_B)] = 0
        if self.policy.score.window or self.policy.score.moments_from is not None:
            for row in np.flatnonzero(is_real_B).tolist():
                self._remember(row, queries_BND[row][:, None], is_counted=True)
        self.drop_now_and_then()
        return read_BHRD.flatten(1, 2)

    def drop_now_and_then(self) -> None:
        """What is too much behind another token of every row."""
        assert self.slots is not None
        self.fresh_tokens += 1
        if self.policy.drops_while_generating and self.fresh_tokens >= self.policy.every_tokens:
            kept = [self._kept(row, self.slots.row(row)) for row in range(self.slots.rows)]
            self.slots, self.fresh_tokens = self.in_slots(kept), 0

    def make_room(self) -> None:
        """For a token of every row."""
        self.forward.check_open()
        assert self.slots is not None
        if self.slots.is_full:
            self.slots = self.slots.with_room()

    def expecting(self) -> SlotTable:
        """A slot more in every head, for a kernel to put a token of every row there; then it `took` them."""
        assert self.slots is not None
        self.slots.count_BH += 1
        return self.slots.stretches

    def took(self, queries_BND: torch.Tensor | None, scale: float) -> None:
        """A token of every row; its queries, for a score that goes by the last ones."""
        self.forward.scales[self.number] = scale
        self.seen_B, self.width = self.seen_B + 1, self.width + 1
        if queries_BND is not None:
            earlier_BNWD = self._earlier_queries(len(queries_BND), queries_BND[0])
            self.queries_BNWD = torch.cat([earlier_BNWD[:, :, 1:], queries_BND[:, :, None]], 2)
            self.remembered_B = np.minimum(self.policy.score.window, self.remembered_B + 1)

    def _over_slots(self, slots: Slots, queries_BHRD: torch.Tensor) -> torch.Tensor:
        sums_attention = self.policy.score.sums_attention
        kernels = kernels_for(queries_BHRD.device, queries_BHRD.dtype)
        if kernels and _fits(slots) and slots.keys_SD.dtype == queries_BHRD.dtype and not queries_BHRD.requires_grad:
            return kernels.attend_slots(queries_BHRD, slots.stretches, self.scale, sums=sums_attention)
        runs = [] if sums_attention else slots.runs
        if len(runs) == 1 and len(runs[0]) == slots.rows:
            return self._over_run(slots, runs[0], queries_BHRD)
        read_BHRD = queries_BHRD.new_zeros(*queries_BHRD.shape[:3], slots.values_SD.shape[-1])
        for run in runs:
            read_BHRD[run.start : run.stop] = self._over_run(slots, run, queries_BHRD[run.start : run.stop])
        for row in sorted({*range(slots.rows)} - {row for run in runs for row in run}):
            for head, own in enumerate(slots.row(row)):
                if len(own):
                    read_RT = attention.weights(queries_BHRD[row, head], own.keys_TD, self.scale)
                    read_BHRD[row, head] = read_RT.to(own.values_TD.dtype) @ own.values_TD
                    if sums_attention:
                        own.mass_T.add_(read_RT.detach().mean(0))
        return read_BHRD

    def _over_run(self, slots: Slots, run: range, queries_BHRD: torch.Tensor) -> torch.Tensor:
        """Rows of a rectangle at once."""
        count_BH = slots.count_BH[run.start : run.stop]
        longest, is_there = int(count_BH.max()), None
        if (count_BH < longest).any():
            is_there = torch.arange(longest) < torch.from_numpy(count_BH)[:, :, None, None]
            is_there = is_there.to(queries_BHRD.device)
        keys_BHTD, values_BHTD = slots.rectangle(slots.keys_SD, run), slots.rectangle(slots.values_SD, run)
        return attention.of_rectangle(queries_BHRD, keys_BHTD, values_BHTD, is_there, self.scale)

    # ------------------------------------------------------------------ what goes

    @torch.no_grad()
    def _kept(self, row: int, segments: Sequence[Segment]) -> list[Segment]:
        budget, counts = self.policy.budget(int(self.seen_B[row]), self.number, self.layers), [len(segment) for segment in segments]
        if sum(counts) <= budget * len(counts) and (self.policy.spreads or max(counts) <= budget):
            return list(segments)
        (kept,) = self.policy.kept([self.held(row, segments, budget, self.policy)])
        found = [segment.at(index_K) for segment, index_K in zip(segments, kept, strict=True)]
        return self._rerotated(row, counts, kept, found) if self.policy.rerotate else found

    def held(self, row: int, segments: Sequence[Segment], budget: int, policy: Policy) -> Held:
        """What a policy's score is given of a row of these segments."""
        return Held.of(
            segments,
            queries_HRQD=self._last_queries(row, segments),
            moments=self.moments_B[row] if self.moments_B else None,
            seen=int(self.seen_B[row]),
            budget=budget,
            recent=policy.recent(int(self.seen_B[row])),
            scale=self.scale,
            layer=self.number,
            module=self.forward.modules[self.number],
            rotation=self.forward.rotation,
        )

    # ------------------------------------------------------------------ positions within what is kept: a slot's is its place in its head

    def _within(self, row: int, new: New) -> New:
        """A row's new tokens at the positions behind what each head keeps."""
        first = int(self.forward.turned_BQ[row][self.forward.is_real_BQ[row]][0])
        counts = [len(own) for own in self.slots.row(row)] if self.slots else [0] * len(new.keys_HQD)
        if all(count == first for count in counts):
            return new
        moved = []
        for queries_RQD, keys_QD, count in zip(new.queries_HRQD, new.keys_HQD, counts, strict=True):
            moved.append(self._moved(torch.cat([queries_RQD, keys_QD[None]]), torch.full((len(new),), count - first)))
        both_HRQD = torch.stack(moved)
        return New(both_HRQD[:, :-1].flatten(0, 1), both_HRQD[:, -1].detach(), new.values_HQD)

    def _behind_slots(self, slots: Slots, queries_BHRD: torch.Tensor, keys_BHD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A new token of each row, at the position behind what each of its heads keeps."""
        by_BH = torch.from_numpy(slots.count_BH - self.forward.turned_BQ[:, :1])
        both_BHRD = torch.cat([queries_BHRD, keys_BHD[:, :, None]], 2)
        rows, heads = by_BH.shape
        moved = self._moved(both_BHRD.permute(2, 0, 1, 3).flatten(1, 2), by_BH.flatten()).unflatten(1, (rows, heads)).permute(1, 2, 0, 3)
        return moved[:, :, :-1], moved[:, :, -1].detach()

    def _rerotated(self, row: int, counts: Sequence[int], kept: Sequence[torch.Tensor], segments: Sequence[Segment]) -> list[Segment]:
        """What is kept, close together; the queries that are remembered go back as far as the last token does."""
        found = []
        for head, (count, index_K, own) in enumerate(zip(counts, kept, segments, strict=True)):
            by_K = torch.arange(len(index_K), device=index_K.device) - index_K
            found.append(replace(own, keys_TD=self._moved(own.keys_TD[None], by_K)[0]))
            if self.queries_BNWD is not None:
                shared = self.queries_BNWD.shape[1] // len(counts)
                queries = self.queries_BNWD[row, head * shared : (head + 1) * shared]
                queries.copy_(self._moved(queries, torch.full((queries.shape[1],), len(index_K) - count)))
        return found

    def _moved(self, states_HTD: torch.Tensor, by_T: torch.Tensor) -> torch.Tensor:
        return self.forward.rotation.moved(self.forward.modules[self.number], states_HTD, by_T.to(states_HTD.device))

    # ------------------------------------------------------------------ queries that scores go by

    def _remember(self, row: int, queries_NQD: torch.Tensor, *, is_counted: bool = False) -> None:
        """What the score needs of a row's new queries; `is_counted`: that they are among those seen already."""
        score, rows = self.policy.score, len(self.seen_B)
        queries_NQD = queries_NQD.detach()
        if score.moments_from is not None:
            if not self.moments_B:
                self.moments_B = [Moments.of(queries_NQD[:, :0])] * rows
            first = max(0, score.moments_from - int(self.seen_B[row]) + queries_NQD.shape[1] * is_counted)
            turned_Q = torch.from_numpy(self.forward.turned_BQ[row][self.forward.is_real_BQ[row]])[first:]
            before_NQD = self.forward.rotation.taken_back(self.forward.modules[self.number], queries_NQD[:, first:].float(), turned_Q)
            self.moments_B[row] = self.moments_B[row].plus(Moments.of(before_NQD))
        if score.window:
            self.queries_BNWD = self._earlier_queries(rows, queries_NQD)
            self.remembered_B[row] = min(score.window, int(self.remembered_B[row]) + queries_NQD.shape[1])
            last_NQD = queries_NQD[:, -score.window :]
            self.queries_BNWD[row] = torch.cat([self.queries_BNWD[row, :, last_NQD.shape[1] :], last_NQD], 1)

    def _earlier_queries(self, rows: int, like_N: torch.Tensor) -> torch.Tensor:
        """Those that are remembered, [B, N, W, D]; none at first, of rows with heads like these, [N, ..., D]."""
        if self.queries_BNWD is None:
            self.remembered_B = np.zeros(rows, dtype=np.int64)
            return like_N.new_zeros(rows, len(like_N), self.policy.score.window, like_N.shape[-1])
        return self.queries_BNWD

    def _last_queries(self, row: int, segments: Sequence[Segment]) -> torch.Tensor:
        """Of a row's last tokens, [H, R, Q, D]; none for a score that asks for none."""
        if self.queries_BNWD is None:
            return segments[0].keys_TD.new_zeros(len(segments), 0, 0, segments[0].keys_TD.shape[-1])
        there = int(self.remembered_B[row])
        return self.queries_BNWD[row, :, self.queries_BNWD.shape[2] - there :].unflatten(0, (len(segments), -1))


def _fits(slots: Slots) -> bool:
    """Whether kernels can read slots of such keys and values."""
    keys_SD, values_SD = slots.keys_SD, slots.values_SD
    return keys_SD.shape == values_SD.shape and keys_SD.dtype == values_SD.dtype and keys_SD.shape[1] % WIDTH == 0
