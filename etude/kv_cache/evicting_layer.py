"""A cache layer that evicts tokens by a policy: after a prompt, and regularly during generation.

Kept tokens are in slots (`slots`), whose number for each row and head depends on the policy. Queries that the score needs are stored
separately (`query_memory`).

Shapes: B rows, N query heads, H key/value heads, R = N / H, Q new tokens, W queries, T slots, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from etude.errors import UserError
from etude.kernels.tables import SlotTable
from etude.kv_cache import attention
from etude.kv_cache.budgets import Spread
from etude.kv_cache.cache_layer import Forward, LayerwiseStep, New, PolicyCacheLayer, places
from etude.kv_cache.evicting_kernels import SlotsStep, kernels_over
from etude.kv_cache.query_memory import QueryMemory
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.score import Score
from etude.kv_cache.slots import ROOM_TOKENS, Segment, Slots
from etude.kv_cache.sparse_prefill import SparsePrefill

ReadWith = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


class Evicting(Protocol):
    """The policy of an evicting layer (`etude.kv_cache.eviction.EvictionPolicy`)."""

    @property
    def score(self) -> Score: ...

    @property
    def every_tokens(self) -> int: ...

    @property
    def rerotate(self) -> bool: ...

    @property
    def sparse(self) -> SparsePrefill | None: ...

    @property
    def layers(self) -> Spread: ...

    @property
    def keeps_all(self) -> bool: ...

    @property
    def drops_while_generating(self) -> bool: ...

    @property
    def spreads(self) -> bool: ...

    def budget(self, seen: int, layer: int, layers: int) -> int: ...

    def recent(self, seen: int) -> int: ...

    def kept(self, inputs: Sequence[ScoreInputs]) -> list[list[torch.Tensor]]: ...


class EvictingCacheLayer(PolicyCacheLayer):
    """A full-attention layer whose tokens are evicted by a policy."""

    can_be_saved = True
    holds_rows: ClassVar[tuple[str, ...]] = ("memory",)

    def __init__(self, forward: Forward, policy: Evicting, number: int, layers: int) -> None:
        super().__init__(forward, number, layers, policy.sparse)
        self.policy = policy
        self.slots: Slots | None = None
        self.memory = QueryMemory(policy.score)
        self.fresh_tokens = 0
        """Tokens generated since the last eviction."""
        self.room_tokens = ROOM_TOKENS
        """Maximum number of tokens to be generated, if known."""
        self._read_rows: list[list[Segment]] = []

    def reset(self) -> None:
        self.__init__(self.forward, self.policy, self.number, self.layers)  # type: ignore[misc]

    @property
    def bytes(self) -> int:
        return (self.slots.bytes if self.slots else 0) + self.memory.bytes

    @property
    def held_tokens_B(self) -> np.ndarray:
        assert self.slots
        found_B: np.ndarray = self.slots.count_BH.mean(1)
        return found_B

    def shares_HT(self, row: int, tokens: int) -> np.ndarray:
        assert self.slots
        kept_HT = np.zeros((self.slots.heads, tokens))
        for head, own in enumerate(self.slots.row(row)):
            position = own.position_T.cpu().numpy()
            kept_HT[head, position[position < tokens]] = 1
        return kept_HT

    def select(self, rows: list[int]) -> None:
        assert self.slots
        self.slots = self.slots.select(rows, room_tokens=self._spare_tokens)
        self.memory.select(rows)

    def take_back(self, tokens: int) -> None:
        assert self.slots
        if not self.policy.keeps_all and (self.memory.is_needed or self.policy.score.sums_attention):
            raise UserError("this policy goes by queries, which can't be taken back: go on with a copy of the cache that was made before")
        self.seen_B, self.width = self.seen_B - tokens, self.width - tokens
        self.slots.end_at(self.seen_B)
        if tokens > ROOM_TOKENS:  # fewer slots stay, and are filled again
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
        """Copy these segments into slots with spare room."""
        return Slots(segments_BH, room_tokens=self._spare_tokens)

    @property
    def _spare_tokens(self) -> int:
        """Number of spare slots: for the tokens until the next eviction or the end."""
        until_drop = self.policy.every_tokens if self.policy.drops_while_generating else ROOM_TOKENS
        return min(ROOM_TOKENS, until_drop, max(1, self.room_tokens))

    @property
    def takes_kernels(self) -> bool:
        """Whether the kernel of a decoding step supports the policy."""
        return not self.policy.rerotate and self.policy.score.moments_from is None

    @classmethod
    def token_attend(cls, layers: Sequence[Any]) -> LayerwiseStep:
        return SlotsStep.of(layers) or LayerwiseStep(layers)

    # ------------------------------------------------------------------ a prompt

    def read(self, row: int, new: New) -> torch.Tensor:
        # append the new tokens to the kept ones
        new = self._within(row, new) if self.policy.rerotate and len(new) else new
        segments = self._with_new(row, new.keys_HQD, new.values_HQD)
        self._read_rows = [] if row == 0 else self._read_rows  # a new list: copies of the layer have the old one
        if self.forward.is_replaying:
            return self._reconstruct(row, new, segments)
        if not len(new):
            self._read_rows.append(segments)
            return new.queries_NQD
        # attend
        read = []
        for queries_RQD, own in zip(new.queries_HRQD, segments, strict=True):
            if self.policy.score.sums_attention:
                read_RQD, mass_T = self._read_with(attention.with_sums, queries_RQD, own)
                own.mass_T.add_(mass_T)
            else:
                read_RQD = self.causal(queries_RQD, own.keys_TD, own.values_TD)
            read.append(read_RQD)
        # evict over budget (a score by replay evicts after its second pass)
        self._remember(row, new.queries_NQD)
        self.seen_B[row] += len(new)
        self._read_rows.append(segments if self.policy.score.reconstruction else self._kept(row, segments))
        return torch.cat(read)

    def _read_with(self, how: ReadWith, queries_RQD: torch.Tensor, own: Segment) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; returns the output, and the attention that each slot receives. Gradients flow only through the output."""
        read_RQD, of_slots = how(queries_RQD.detach(), own.keys_TD, own.values_TD, self.scale)
        needs_own = self.sparse or (torch.is_grad_enabled() and queries_RQD.requires_grad)
        return (self.causal(queries_RQD, own.keys_TD, own.values_TD) if needs_own else read_RQD), of_slots

    @torch.no_grad()
    def _reconstruct(self, row: int, new: New, segments: Sequence[Segment]) -> torch.Tensor:
        """Attend to kept and new tokens without keeping the new ones; record the largest attention that each slot receives."""
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
        """Return a row's segments with new tokens appended."""
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
        # append the tokens, after each head's slots if positions are rerotated
        self.make_room()
        queries_BHRD, keys_BHD = queries_BND.unflatten(1, (self.slots.heads, -1)), self.keys[:, :, 0]
        if self.policy.rerotate:
            queries_BHRD, keys_BHD = self._after_slots(self.slots, queries_BHRD, keys_BHD)
            queries_BND = queries_BHRD.flatten(1, 2)
        self.slots.append(keys_BHD, self.values[:, :, 0], self.seen_B, is_real_B)
        self.seen_B = self.seen_B + is_real_B
        # attend, then evict over budget
        read_BHRD = self._over_slots(self.slots, queries_BHRD)
        if not is_real_B.all():
            read_BHRD[torch.from_numpy(~is_real_B)] = 0
        if self.memory.is_needed:
            for row in np.flatnonzero(is_real_B).tolist():
                self._remember(row, queries_BND[row][:, None], is_counted=True)
        self.evict_if_due()
        return read_BHRD.flatten(1, 2)

    def evict_if_due(self) -> None:
        """Count a new token of every row, and evict over budget after every `every_tokens` tokens."""
        assert self.slots is not None
        self.fresh_tokens += 1
        if self.policy.drops_while_generating and self.fresh_tokens >= self.policy.every_tokens:
            kept = [self._kept(row, self.slots.row(row)) for row in range(self.slots.rows)]
            self.slots, self.fresh_tokens = self.in_slots(kept), 0

    def make_room(self) -> None:
        """Ensure room for a token of every row."""
        self.forward.check_open()
        assert self.slots is not None
        if self.slots.is_full:
            self.slots = self.slots.with_room()

    def expecting(self) -> SlotTable:
        """Add a slot to every head, for a kernel to fill with a token of every row; call `took` afterwards."""
        assert self.slots is not None
        self.slots.count_BH += 1
        return self.slots.stretches

    def took(self, queries_BND: torch.Tensor | None, scale: float) -> None:
        """Count the token of every row that a kernel has put into the slots. `queries_BND`: for a score that needs the last queries."""
        self.forward.scales[self.number] = scale
        self.seen_B, self.width = self.seen_B + 1, self.width + 1
        if queries_BND is not None:
            self.memory.add_token(queries_BND)

    def _over_slots(self, slots: Slots, queries_BHRD: torch.Tensor) -> torch.Tensor:
        sums_attention = self.policy.score.sums_attention
        # by a kernel
        kernels = kernels_over(slots)
        if kernels and slots.keys_SD.dtype == queries_BHRD.dtype and not queries_BHRD.requires_grad:
            return kernels.attend_slots(queries_BHRD, slots.stretches, self.scale, sums=sums_attention)
        # by torch: adjacent rows at once, the others one by one
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
        """Attend over adjacent rows with segments of one length as one product."""
        count_BH = slots.count_BH[run.start : run.stop]
        longest, is_there = int(count_BH.max()), None
        if (count_BH < longest).any():
            is_there = torch.arange(longest) < torch.from_numpy(count_BH)[:, :, None, None]
            is_there = is_there.to(queries_BHRD.device)
        keys_BHTD, values_BHTD = slots.rectangle(slots.keys_SD, run), slots.rectangle(slots.values_SD, run)
        return attention.of_rectangle(queries_BHRD, keys_BHTD, values_BHTD, is_there, self.scale)

    # ------------------------------------------------------------------ eviction

    @torch.no_grad()
    def _kept(self, row: int, segments: Sequence[Segment]) -> list[Segment]:
        budget, counts = self.policy.budget(int(self.seen_B[row]), self.number, self.layers), [len(segment) for segment in segments]
        if sum(counts) <= budget * len(counts) and (self.policy.spreads or max(counts) <= budget):
            return list(segments)
        (kept,) = self.policy.kept([self.score_inputs(row, segments, budget, self.policy)])
        found = [segment.at(index_K) for segment, index_K in zip(segments, kept, strict=True)]
        return self._rerotated(row, counts, kept, found) if self.policy.rerotate else found

    def score_inputs(self, row: int, segments: Sequence[Segment], budget: int, policy: Evicting) -> ScoreInputs:
        """Return the inputs of a policy's score for a row with these segments."""
        return ScoreInputs.of(
            segments,
            queries_HRQD=self.memory.last(row, [own.keys_TD for own in segments]),
            moments=self.memory.moments_B[row] if self.memory.moments_B else None,
            seen=int(self.seen_B[row]),
            budget=budget,
            recent=policy.recent(int(self.seen_B[row])),
            scale=self.scale,
            layer=self.number,
            module=self.forward.modules[self.number],
            rotation=self.forward.rotation,
        )

    # ------------------------------------------------------------------ rerotation: a slot's position is its index in its head

    def _within(self, row: int, new: New) -> New:
        """Rotate a row's new tokens to the positions after each head's kept tokens."""
        first = int(self.forward.turned_BQ[row][self.forward.is_real_BQ[row]][0])
        counts = [len(own) for own in self.slots.row(row)] if self.slots else [0] * len(new.keys_HQD)
        if all(count == first for count in counts):
            return new
        moved = []
        for queries_RQD, keys_QD, count in zip(new.queries_HRQD, new.keys_HQD, counts, strict=True):
            moved.append(self._moved(torch.cat([queries_RQD, keys_QD[None]]), torch.full((len(new),), count - first)))
        both_HRQD = torch.stack(moved)
        return New(both_HRQD[:, :-1].flatten(0, 1), both_HRQD[:, -1].detach(), new.values_HQD)

    def _after_slots(self, slots: Slots, queries_BHRD: torch.Tensor, keys_BHD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotate a new token of each row to the position after each head's kept tokens."""
        by_BH = torch.from_numpy(slots.count_BH - self.forward.turned_BQ[:, :1])
        both_BHRD = torch.cat([queries_BHRD, keys_BHD[:, :, None]], 2)
        rows, heads = by_BH.shape
        moved = self._moved(both_BHRD.permute(2, 0, 1, 3).flatten(1, 2), by_BH.flatten()).unflatten(1, (rows, heads)).permute(1, 2, 0, 3)
        return moved[:, :, :-1], moved[:, :, -1].detach()

    def _rerotated(self, row: int, counts: Sequence[int], kept: Sequence[torch.Tensor], segments: Sequence[Segment]) -> list[Segment]:
        """Rotate kept keys to adjacent positions; stored queries move back as far as the last token."""
        found = []
        for head, (count, index_K, own) in enumerate(zip(counts, kept, segments, strict=True)):
            by_K = torch.arange(len(index_K), device=index_K.device) - index_K
            found.append(replace(own, keys_TD=self._moved(own.keys_TD[None], by_K)[0]))
            if self.memory.queries_BNWD is not None:
                shared = self.memory.queries_BNWD.shape[1] // len(counts)
                queries = self.memory.queries_BNWD[row, head * shared : (head + 1) * shared]
                queries.copy_(self._moved(queries, torch.full((queries.shape[1],), len(index_K) - count)))
        return found

    def _moved(self, states_HTD: torch.Tensor, by_T: torch.Tensor) -> torch.Tensor:
        return self.forward.rotation.moved(self.forward.modules[self.number], states_HTD, by_T.to(states_HTD.device))

    # ------------------------------------------------------------------ queries that scores use

    def _remember(self, row: int, queries_NQD: torch.Tensor, *, is_counted: bool = False) -> None:
        """Add a row's new queries to the query memory; `is_counted`: they are already included in the row's number of tokens."""
        queries_NQD = queries_NQD.detach()

        def unrotated(first: int) -> torch.Tensor:
            turned_Q = torch.from_numpy(self.forward.turned_BQ[row][self.forward.is_real_BQ[row]])[first:]
            return self.forward.rotation.taken_back(self.forward.modules[self.number], queries_NQD[:, first:].float(), turned_Q)

        seen = int(self.seen_B[row]) - queries_NQD.shape[1] * is_counted
        self.memory.add(row, queries_NQD, seen, len(self.seen_B), unrotated)
