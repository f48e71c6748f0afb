"""A cache layer that keeps every token in pages, and retrieves the pages needed by each generated token (`page_selection`).

Prompts are read in full, or token by token as if they were generated (`full_prompts`). The page table manages the pages (`page_store`); a
kernel may run a whole decoding step (`paged_kernels`).

Shapes: B rows, N query heads, H key/value heads, R query heads that share one, Q new tokens, U units of pages, K of them read, S tokens
that are read, D width.
"""

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from etude.kv_cache import attention
from etude.kv_cache.cache_layer import Forward, LayerwiseStep, New, PolicyCacheLayer, places
from etude.kv_cache.offload import gather_units
from etude.kv_cache.page_selection import PageSelection, Selecting
from etude.kv_cache.page_store import PageStore, Paging
from etude.kv_cache.paged_kernels import PagesStep, kernels_over
from etude.kv_cache.sparse_prefill import SparsePrefill


class Retrieving(Paging, Selecting, Protocol):
    """The policy of a paged layer (`etude.kv_cache.retrieval.PagedRetrieval`)."""

    @property
    def full_prompts(self) -> bool: ...

    @property
    def stream_per_layer(self) -> bool: ...

    @property
    def sparse(self) -> SparsePrefill | None: ...


class PagedCacheLayer(PolicyCacheLayer):
    """A full-attention layer whose queries retrieve pages."""

    holds_rows: ClassVar[tuple[str, ...]] = ("pages", "selection")

    def __init__(self, forward: Forward, policy: Retrieving, number: int, layers: int) -> None:
        self.pages, self.selection = PageStore(policy), PageSelection(policy, number)
        super().__init__(forward, number, layers, policy.sparse)
        self.policy = policy

    def reset(self) -> None:
        self.__init__(self.forward, self.policy, self.number, self.layers)  # type: ignore[misc]

    def __deepcopy__(self, memo: Any) -> "PagedCacheLayer":
        other = copy.copy(self)
        other.pages, other.selection = self.pages.copy(), self.selection.copy()
        return other

    @property
    def seen_B(self) -> np.ndarray:
        """Number of tokens of each row, counted by the page table."""
        return self.pages.tokens_B

    @seen_B.setter
    def seen_B(self, tokens_B: np.ndarray) -> None:
        self.pages.tokens_B = tokens_B

    # ------------------------------------------------------------------ sizes and counts

    @property
    def bytes(self) -> int:
        return self.pages.bytes

    @property
    def pool(self) -> Any:
        return self.pages.pool

    @property
    def units_read(self) -> int:
        return self.selection.units_read

    @property
    def hits(self) -> int:
        """Number of units read that were already on the model's device."""
        return self.pages.pool.hits if self.pages.pool else self.units_read

    @property
    def moved_bytes(self) -> int:
        """Bytes fetched from offloaded storage."""
        return self.pages.pool.moved_bytes if self.pages.pool else 0

    @property
    def held_tokens_B(self) -> np.ndarray:
        near_B = np.zeros_like(self.pages.full_B) if self.policy.stream_per_layer else self._near_B
        return near_B + self.pages.open_B + self.pages.summary_tokens_B

    @property
    def streamed_tokens_B(self) -> np.ndarray:
        return self._near_B if self.policy.stream_per_layer else super().streamed_tokens_B

    @property
    def _near_B(self) -> np.ndarray:
        """Tokens of full pages on the model's device: all, or with offloading those that each row reads."""
        near_B: np.ndarray = self.pages.full_B * self.policy.page_tokens
        if self.policy.offload == "none":
            return near_B
        both = zip(self.selection.policy_B, self.seen_B, strict=True)
        return np.minimum([policy.units(int(seen), self.number) * policy.unit_tokens for policy, seen in both], near_B)

    def shares_HT(self, row: int, tokens: int) -> np.ndarray:
        by_page_HP = self.pages.times_BHP[row] / (self.pages.units * max(1, self.selection.generated_B[row]))
        found_HT: np.ndarray = by_page_HP.repeat(self.policy.page_tokens, 1)[:, :tokens]
        return found_HT

    # ------------------------------------------------------------------ rows

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.selection.start(len(key_states))
        self.pages.start(key_states, value_states)

    def select(self, rows: list[int]) -> None:
        self.pages.select(rows)
        self.selection.select(rows)

    def take_back(self, tokens: int) -> None:
        self.pages.take_back(tokens)
        self.width -= tokens

    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.width = keys_BHTD.shape[2]
        for row, (keys_HTD, values_HTD) in enumerate(zip(keys_BHTD, values_BHTD, strict=True)):
            own = slice(None) if is_real_BT is None else places(is_real_BT[row, : self.width].bool().cpu().numpy())
            self.pages.fill(row, torch.stack([keys_HTD[:, own], values_HTD[:, own]], 1))

    @classmethod
    def token_attend(cls, layers: Sequence[Any]) -> LayerwiseStep:
        return PagesStep.of(layers) or LayerwiseStep(layers)

    # ------------------------------------------------------------------ a prompt

    def read(self, row: int, new: New) -> torch.Tensor:
        states_H2QD = torch.stack([new.keys_HQD, new.values_HQD], 1)
        if not len(new):
            return new.queries_NQD
        # a later prompt, each token of which retrieves its own pages
        if self.seen_B[row] and not self.policy.full_prompts:
            tokens = zip(new.queries_HRQD.unbind(2), states_H2QD.unbind(2), strict=True)
            one = np.array([row])
            return torch.stack([self._retrieved(one, queries[None], states[None])[0].flatten(0, 1) for queries, states in tokens], 1)
        # a prompt that reads everything
        read = []
        for head, queries_RQD in enumerate(new.queries_HRQD):
            own_2TD = torch.cat([self.pages.past(row, head), states_H2QD[head]], 1)
            read.append(self.causal(queries_RQD, own_2TD[0], own_2TD[1]))
        self.pages.fill(row, states_H2QD)
        return torch.cat(read)

    def finish(self) -> None:
        pass

    @property
    def generates_prompts(self) -> bool:
        return not self.policy.full_prompts and bool((self.seen_B > 0).all())

    # ------------------------------------------------------------------ token by token

    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        assert self.keys is not None and self.values is not None
        states_BH2D = torch.stack([self.keys[:, :, 0], self.values[:, :, 0]], 2)
        queries_BHRD = queries_BND.unflatten(1, (states_BH2D.shape[1], -1))
        if is_real_B.all():
            return self._retrieved(np.arange(len(is_real_B)), queries_BHRD, states_BH2D).flatten(1, 2)
        rows = np.flatnonzero(is_real_B)
        read_BHRD = torch.zeros_like(queries_BHRD)
        if len(rows):
            read_BHRD[rows] = self._retrieved(rows, queries_BHRD[rows], states_BH2D[rows])
        return read_BHRD.flatten(1, 2)

    def chosen(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Select the units that each head reads of these rows (`PageSelection.chosen`)."""
        return self.selection.chosen(self.pages, rows, queries_BHRD, self.scale)

    @torch.no_grad()
    def _retrieved(self, rows: np.ndarray, queries_BHRD: torch.Tensor, states_BH2D: torch.Tensor) -> torch.Tensor:
        """Store a new token of each of these rows; returns its attention output [B, H, R, D]."""
        # store
        pages = self.pages
        pages.add_token(rows)
        pages.open_BH2TD[rows, :, :, pages.open_B[rows] - 1] = states_BH2D
        # select
        chosen_BHK, is_chosen_BHK = self.chosen(rows, queries_BHRD)
        pages.count_reads(rows, chosen_BHK, is_chosen_BHK)
        self.selection.generated_B[rows] += 1
        # fetch and attend
        numbers = pages.numbers_of(rows, chosen_BHK)
        place_BHK = self._fetched(torch.from_numpy(numbers), torch.from_numpy(is_chosen_BHK))
        read_BHRD = self._attended(rows, queries_BHRD, place_BHK, is_chosen_BHK)
        if self.policy.stream_per_layer:
            self.streamed_bytes = pages.storage.bytes
            pages.storage.let_go()
        return read_BHRD

    def _fetched(self, numbers_BHK: torch.Tensor, is_chosen_BHK: torch.Tensor) -> torch.Tensor:
        """Fetch these units to the model's device and return their places; unselected entries repeat a selected unit."""
        if not numbers_BHK.shape[2]:
            return numbers_BHK
        self.selection.units_read += int(is_chosen_BHK.sum())
        some = numbers_BHK[is_chosen_BHK]
        numbers_BHK = torch.where(is_chosen_BHK, numbers_BHK, some[0] if len(some) else 0)
        place_BHK: torch.Tensor = self.pages.storage.bring(numbers_BHK)
        if len(self.selection.ahead):
            self.pages.storage.expect(self.selection.ahead)
        return place_BHK

    def _attended(self, rows: np.ndarray, queries_BHRD: torch.Tensor, place_BHK: torch.Tensor, is_chosen_BHK: np.ndarray) -> torch.Tensor:
        """Attend to the units at these places and to the open pages."""
        pages, unit_tokens = self.pages, self.policy.unit_tokens
        if kernels := kernels_over(pages, queries_BHRD):
            reads_B, open_B = (torch.from_numpy(each) for each in (is_chosen_BHK[:, 0].sum(1), pages.open_B[rows]))
            own_BH2TD = pages.open_BH2TD if len(rows) == len(self.seen_B) else pages.open_BH2TD[rows]
            here = pages.storage.pages_P2TD, place_BHK, reads_B, own_BH2TD, open_B
            return kernels.attend_pages(queries_BHRD, *here, self.scale, unit_tokens=unit_tokens)
        # the same with torch operations
        heads, device = queries_BHRD.shape[1], queries_BHRD.device
        is_open_BT = torch.arange(self.policy.page_tokens) < torch.from_numpy(pages.open_B[rows])[:, None]
        is_there_BHS = is_open_BT.to(device)[:, None].expand(-1, heads, -1)
        states_2BHSD = pages.open_BH2TD[rows].movedim(2, 0)
        if place_BHK.shape[2]:
            units_2BHKUD = gather_units(pages.storage.pages_P2TD, place_BHK, unit_tokens)
            states_2BHSD = torch.cat([units_2BHKUD.flatten(3, 4), states_2BHSD], 3)
            is_unit_BHS = torch.from_numpy(is_chosen_BHK).to(device).repeat_interleave(unit_tokens, 2)
            is_there_BHS = torch.cat([is_unit_BHS, is_there_BHS], 2)
        return attention.of_rectangle(queries_BHRD, states_2BHSD[0], states_2BHSD[1], is_there_BHS[:, :, None], self.scale)
