"""A layer that keeps everything in pages, and reads of them what a token needs.

A row's tokens fill pages in order; the last, open one lies beside the model and is always read. A page that is full gets a number and a
digest and goes to its tier. While tokens are generated, a head reads the first page and those whose digests promise its queries most: by
query head the softmax of the promises, over the heads that share keys their largest. Under sketches, which know single keys, it is the
first token and those that promise most. Pages are never written anew, so that rows and copies share them; those of rows that are gone stay
until the last copy is.

Shapes: B rows, H key/value heads, R query heads that share one, P pages, T tokens of one, U units of pages, K of them read, D width.
"""

import copy
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.errors import UserError
from etude.kernels.compiled import WIDTH
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import PageTable
from etude.kv_cache import attention
from etude.kv_cache.digests import Digests
from etude.kv_cache.layer import ContextLayer, Forward, New, places
from etude.kv_cache.recall import Recall
from etude.kv_cache.sketches import Sketches
from etude.kv_cache.tiers import File, Memory, Pool, apart

_ROOM_PAGES = 16


class PageLayer(ContextLayer):
    """Under recall."""

    def __init__(self, forward: Forward, recall: Recall, number: int, layers: int) -> None:
        super().__init__(forward, number, layers, recall.sparse)
        self.recall = recall
        self.recall_B: list[Recall] = []
        """Of each row: how much it reads may differ."""
        self.tier: Any = None
        self.numbers_BHP = np.zeros((0, 0, 0), dtype=np.int64)
        """Of a row's full pages, in order; room to spare behind them."""
        self.known: Digests | Sketches | None = None
        """Of full pages, without reading them."""
        self.open_BH2TD = torch.zeros(0)
        self._next = count()
        self._ahead = np.zeros(0, dtype=np.int64)
        """Units that the next token may read."""
        self.units_read = 0
        """By heads, of rows that generate."""
        self.times_BHP = np.zeros((0, 0, 0), dtype=np.int64)
        """How many units of a row's page, open or full, were read so far, while tokens were generated; and how many these were:"""
        self.generated_B = np.zeros(0, dtype=np.int64)

    def reset(self) -> None:
        self.__init__(self.forward, self.recall, self.number, self.layers)  # type: ignore[misc]

    def __deepcopy__(self, memo: Any) -> "PageLayer":
        """Pages never change, so that both read the same ones, and new ones of either get numbers of their own."""
        other = copy.copy(self)
        other.numbers_BHP, other.seen_B = self.numbers_BHP.copy(), self.seen_B.copy()
        other.times_BHP, other.generated_B = self.times_BHP.copy(), self.generated_B.copy()
        other.known, other.open_BH2TD = self.known and self.known.of(list(range(len(self.seen_B)))), self.open_BH2TD.clone()
        return other

    @property
    def digest_tokens_B(self) -> np.ndarray:
        """What each row's digests take of a head, in tokens' keys and values."""
        assert self.known
        page_bytes = self.known.known_BHPX.shape[3] * self.known.known_BHPX.itemsize
        token_bytes = self.open_BH2TD.shape[2] * self.open_BH2TD.shape[4] * self.open_BH2TD.itemsize
        found_B: np.ndarray = (self.full_B * page_bytes + self.known.head_bytes) / token_bytes
        return found_B

    @property
    def units(self) -> int:
        """Of a page."""
        return self.recall.page_tokens // self.recall.unit_tokens

    @property
    def full_B(self) -> np.ndarray:
        """Full pages of each row. A page that has just filled is open until another token comes."""
        return np.maximum(self.seen_B - 1, 0) // self.recall.page_tokens

    @property
    def open_B(self) -> np.ndarray:
        """Tokens in each row's open page."""
        return self.seen_B - self.full_B * self.recall.page_tokens

    @property
    def bytes(self) -> int:
        return sum(own.bytes for own in (self.tier, self.known) if own) + self.open_BH2TD.untyped_storage().nbytes()

    @property
    def hits(self) -> int:
        """Units that were read and lay beside the model already."""
        return self.tier.hits if isinstance(self.tier, Pool) else self.units_read

    @property
    def moved_bytes(self) -> int:
        """Brought from further away."""
        return self.tier.moved_bytes if isinstance(self.tier, Pool) else 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.recall_B = [self.recall] * len(key_states)
        if key_states.shape[-1] != value_states.shape[-1]:
            raise UserError(
                "keys and values of this model have different widths, so they can't lie in one page: take a policy without recall"
            )
        rows, heads, _, width = key_states.shape
        tokens, unit_tokens = self.recall.page_tokens, self.recall.unit_tokens
        if self.recall.offload == "memory" and key_states.device.type == "cpu":
            raise UserError(
                "offload is 'memory', which is the host's, but the model computes there already: set offload to 'file' or 'none'"
            )
        near = Memory(key_states, tokens, key_states.device)
        far = {
            "none": lambda: near,
            "memory": lambda: Pool(Memory(key_states, tokens, torch.device("cpu")), key_states, unit_tokens),
            "file": lambda: Pool(
                File(key_states, tokens, Path(self.recall.folder) if self.recall.folder else None), key_states, unit_tokens
            ),
        }
        self.tier = far[self.recall.offload]()
        self.numbers_BHP = np.zeros((rows, heads, 0), dtype=np.int64)
        self.times_BHP, self.generated_B = np.zeros((rows, heads, 1), dtype=np.int64), np.zeros(rows, dtype=np.int64)
        self.known = Sketches(key_states) if self.recall.digest == "sketch" else Digests(self.recall.digest, key_states)
        self.open_BH2TD = key_states.new_zeros(rows, heads, 2, tokens, width)

    def select(self, rows: list[int]) -> None:
        self.recall_B = [self.recall_B[row] for row in rows]
        self.known = self.known and self.known.of(rows)
        self.numbers_BHP, self.open_BH2TD = self.numbers_BHP[rows], self.open_BH2TD[rows]
        self.times_BHP, self.generated_B = self.times_BHP[rows], self.generated_B[rows]

    def take_back(self, tokens: int) -> None:
        before_B = self.full_B
        self.seen_B, self.width = self.seen_B - tokens, self.width - tokens
        for row in np.flatnonzero(self.full_B < before_B).tolist():
            again = self.tier.read(torch.from_numpy(self.numbers_BHP[row, :, self.full_B[row]]))
            self.open_BH2TD[row] = again
            assert self.known
            self.known.take_back(row, int(self.full_B[row]), self._past_keys)

    def take(self, keys_BHTD: torch.Tensor, values_BHTD: torch.Tensor, is_real_BT: torch.Tensor | None) -> None:
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self.width = keys_BHTD.shape[2]
        for row, (keys_HTD, values_HTD) in enumerate(zip(keys_BHTD, values_BHTD, strict=True)):
            own = slice(None) if is_real_BT is None else places(is_real_BT[row, : self.width].bool().cpu().numpy())
            self._fill(row, torch.stack([keys_HTD[:, own], values_HTD[:, own]], 1))

    # ------------------------------------------------------------------ a token of every row, by a kernel that runs all layers

    @property
    def takes_kernels(self) -> bool:
        """Whether a kernel can choose and read its pages."""
        like = self.open_BH2TD
        return isinstance(self.tier, Memory) and like.shape[-1] % WIDTH == 0 and self.tier.pages_P2TD.device == like.device

    def expecting(self) -> PageTable:
        """With a place for a new token in every row: what is read for it."""
        assert self.known
        self.forward.check_open()
        rows = np.arange(len(self.seen_B))
        self._make_room(rows)
        reads_B = self._reads_B(rows)
        self.units_read += int(reads_B.sum()) * self.numbers_BHP.shape[1]
        self.generated_B += 1
        full_B, open_B, read_B = (torch.from_numpy(np.ascontiguousarray(own)) for own in (self.full_B, self.open_B, reads_B))
        self.numbers_BHP, self.times_BHP = (np.ascontiguousarray(own) for own in (self.numbers_BHP, self.times_BHP))
        places, times = torch.from_numpy(self.numbers_BHP), torch.from_numpy(self.times_BHP)
        states = self.tier.pages_P2TD, self.known.known_BHPX, self.open_BH2TD
        return PageTable(*states, places, times, full_B, open_B, read_B, self.known.directions_BHDX)

    def took(self, table: PageTable, scale: float) -> None:
        """The kernel has put the new token into these open pages."""
        assert self.known
        self.forward.scales[self.number] = scale
        self.known.known_BHPX, self.open_BH2TD = table.known_BHPX, table.open_BH2TD
        self.width += 1

    # ------------------------------------------------------------------ a prompt

    def read(self, row: int, new: New) -> torch.Tensor:
        states_H2QD = torch.stack([new.keys_HQD, new.values_HQD], 1)
        if not len(new):
            return new.queries_NQD
        if self.seen_B[row] and not self.recall.full_prompts:
            tokens = zip(new.queries_HRQD.unbind(2), states_H2QD.unbind(2), strict=True)
            one = np.array([row])
            return torch.stack([self._recalled(one, queries[None], states[None])[0].flatten(0, 1) for queries, states in tokens], 1)
        read = []
        for head, queries_RQD in enumerate(new.queries_HRQD):
            own_2TD = torch.cat([self._past(row, head), states_H2QD[head]], 1)
            read.append(self.causal(queries_RQD, own_2TD[0], own_2TD[1]))
        self._fill(row, states_H2QD)
        return torch.cat(read)

    def finish(self) -> None:
        pass

    @property
    def generates_prompts(self) -> bool:
        return not self.recall.full_prompts and bool((self.seen_B > 0).all())

    def _past(self, row: int, head: int) -> torch.Tensor:
        """All that a head holds of a row, [2, T, D]."""
        pages_P2TD = self.tier.read(torch.from_numpy(self.numbers_BHP[row, head, : self.full_B[row]]))
        return torch.cat([pages_P2TD.transpose(0, 1).flatten(1, 2), self.open_BH2TD[row, head, :, : self.open_B[row]]], 1)

    def _past_keys(self, row: int, pages: int) -> torch.Tensor:
        """Of its first pages, [H, P, T, D]."""
        found: torch.Tensor = self.tier.read(torch.from_numpy(self.numbers_BHP[row, :, :pages]))[:, :, 0]
        return found

    @torch.no_grad()
    def _fill(self, row: int, states_H2QD: torch.Tensor) -> None:
        """Behind what a row has in its open page, and in as many pages as that takes."""
        tokens, before = self.recall.page_tokens, int(self.full_B[row])
        states_H2QD = torch.cat([self.open_BH2TD[row, :, :, : int(self.open_B[row])], states_H2QD], 2)
        self.seen_B[row] = before * tokens + states_H2QD.shape[2]
        filled = int(self.full_B[row]) - before
        if filled:
            pages_HP2TD = states_H2QD[:, :, : filled * tokens].unflatten(2, (filled, tokens)).transpose(1, 2)
            self._put([row] * filled, list(range(before, before + filled)), pages_HP2TD.transpose(0, 1))
        rest = states_H2QD[:, :, filled * tokens :]
        self.open_BH2TD[row, :, :, : rest.shape[2]] = rest

    def _put(self, rows: list[int], at: list[int], pages_NH2TD: torch.Tensor) -> None:
        """Full pages to their tier, at these places of these rows."""
        assert self.known
        count_N, heads = pages_NH2TD.shape[:2]
        more = max(at) + 1 - self.numbers_BHP.shape[2]
        if more > 0:
            more = max(more, _ROOM_PAGES)
            self.numbers_BHP, self.times_BHP = (np.pad(own, ((0, 0), (0, 0), (0, more))) for own in (self.numbers_BHP, self.times_BHP))
            self.known.known_BHPX = torch.nn.functional.pad(self.known.known_BHPX, (0, 0, 0, more))
        numbers = [next(self._next) for _ in range(count_N * heads)]
        self.tier.write(numbers, pages_NH2TD.flatten(0, 1))
        self.numbers_BHP[rows, :, at] = np.array(numbers).reshape(count_N, heads)
        self.known.put(rows, at, pages_NH2TD[:, :, 0], self._past_keys)

    # ------------------------------------------------------------------ token by token

    def generate(self, queries_BND: torch.Tensor, is_real_B: np.ndarray) -> torch.Tensor:
        assert self.keys is not None and self.values is not None
        states_BH2D = torch.stack([self.keys[:, :, 0], self.values[:, :, 0]], 2)
        queries_BHRD = queries_BND.unflatten(1, (states_BH2D.shape[1], -1))
        if is_real_B.all():
            return self._recalled(np.arange(len(is_real_B)), queries_BHRD, states_BH2D).flatten(1, 2)
        rows = np.flatnonzero(is_real_B)
        read_BHRD = torch.zeros_like(queries_BHRD)
        if len(rows):
            read_BHRD[rows] = self._recalled(rows, queries_BHRD[rows], states_BH2D[rows])
        return read_BHRD.flatten(1, 2)

    @torch.no_grad()
    def _recalled(self, rows: np.ndarray, queries_BHRD: torch.Tensor, states_BH2D: torch.Tensor) -> torch.Tensor:
        """A new token of each of these rows: what its queries read, [B, H, R, D]."""
        self._make_room(rows)
        self.open_BH2TD[rows, :, :, self.open_B[rows] - 1] = states_BH2D
        chosen_BHK, is_chosen_BHK = self.chosen(rows, queries_BHRD)
        self._count(rows, chosen_BHK, is_chosen_BHK)
        numbers = self._numbers_of(rows, chosen_BHK)
        place_BHK = self._brought(torch.from_numpy(numbers), torch.from_numpy(is_chosen_BHK))
        read_BHRD = self._read(rows, queries_BHRD, place_BHK, is_chosen_BHK)
        if self.recall.passing:
            self.passing_bytes = self.tier.bytes
            self.tier.let_go()
        return read_BHRD

    def _read(self, rows: np.ndarray, queries_BHRD: torch.Tensor, place_BHK: torch.Tensor, is_chosen_BHK: np.ndarray) -> torch.Tensor:
        """What queries read of the units at these places, and of the open pages."""
        if kernels := self._kernels_for(queries_BHRD):
            reads_B, open_B = (torch.from_numpy(each) for each in (is_chosen_BHK[:, 0].sum(1), self.open_B[rows]))
            own_BH2TD = self._rows_of(self.open_BH2TD, rows)
            here = self.tier.pages_P2TD, place_BHK, reads_B, own_BH2TD, open_B
            return kernels.attend_pages(queries_BHRD, *here, self.scale, unit_tokens=self.recall.unit_tokens)
        return self._attended(rows, queries_BHRD, place_BHK, is_chosen_BHK)

    def _make_room(self, rows: np.ndarray) -> None:
        """For a new token of each of these rows, which is counted."""
        is_full_B = self.open_B[rows] == self.recall.page_tokens
        if is_full_B.any():
            full = rows[is_full_B].tolist()
            self._put(full, self.full_B[full].tolist(), self.open_BH2TD[full])
        self.seen_B[rows] += 1

    def _reads_B(self, rows: np.ndarray) -> np.ndarray:
        """How many units of full pages each of these rows reads."""
        most = [self.recall_B[row].units(int(self.seen_B[row]), self.number) for row in rows]
        return np.array(most, dtype=np.int64).clip(max=self.full_B[rows] * self.units)

    def _numbers_of(self, rows: np.ndarray, units_BHK: np.ndarray) -> np.ndarray:
        """Of units of these rows, by their place in it."""
        pages_BHK, within_BHK = np.divmod(units_BHK, self.units)
        return np.take_along_axis(self.numbers_BHP[rows], pages_BHK, 2) * self.units + within_BHK

    def _attended(self, rows: np.ndarray, queries_BHRD: torch.Tensor, place_BHK: torch.Tensor, is_chosen_BHK: np.ndarray) -> torch.Tensor:
        """The same by torch's operations."""
        heads, device = queries_BHRD.shape[1], queries_BHRD.device
        is_open_BT = torch.arange(self.recall.page_tokens) < torch.from_numpy(self.open_B[rows])[:, None]
        is_there_BHS = is_open_BT.to(device)[:, None].expand(-1, heads, -1)
        states_2BHSD = self.open_BH2TD[rows].movedim(2, 0)
        if place_BHK.shape[2]:
            units_2BHKUD = apart(self.tier.pages_P2TD, place_BHK, self.recall.unit_tokens)
            states_2BHSD = torch.cat([units_2BHKUD.flatten(3, 4), states_2BHSD], 3)
            is_unit_BHS = torch.from_numpy(is_chosen_BHK).to(device).repeat_interleave(self.recall.unit_tokens, 2)
            is_there_BHS = torch.cat([is_unit_BHS, is_there_BHS], 2)
        return attention.of_rectangle(queries_BHRD, states_2BHSD[0], states_2BHSD[1], is_there_BHS[:, :, None], self.scale)

    def _kernels_for(self, queries_BHRD: torch.Tensor) -> DecodingKernels | None:
        fits = queries_BHRD.shape[-1] % WIDTH == 0 and queries_BHRD.dtype == self.open_BH2TD.dtype
        return kernels_for(queries_BHRD.device, queries_BHRD.dtype) if fits else None

    def _rows_of(self, states_B: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return states_B if len(rows) == len(self.seen_B) else states_B[rows]

    def _count(self, rows: np.ndarray, chosen_BHK: np.ndarray, is_chosen_BHK: np.ndarray) -> None:
        """That these units, and the open page, were read."""
        heads = np.arange(chosen_BHK.shape[1])[:, None]
        np.add.at(self.times_BHP, (rows[:, None, None], heads, chosen_BHK // self.units), is_chosen_BHK)
        self.times_BHP[rows, :, self.full_B[rows]] += self.units
        self.generated_B[rows] += 1

    def chosen(self, rows: np.ndarray, queries_BHRD: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Which units of full pages each head reads of these rows, in order, [B, H, K], and whether each is one: rows that read fewer have
        others behind them.
        """
        assert self.known
        full_B, most_B = self.full_B[rows], self._reads_B(rows)
        units_B = full_B * self.units
        heads, most = queries_BHRD.shape[1], int(most_B.max(initial=0))
        if (most_B == units_B).all():
            chosen_BHK = np.broadcast_to(np.arange(most), (len(rows), heads, most)).copy()
            return chosen_BHK, chosen_BHK < units_B[:, None, None]
        is_chosen_BHK = np.broadcast_to(np.arange(most) < most_B[:, None, None], (len(rows), heads, most)).copy()
        asked_BHRX = self.known.asked(rows, queries_BHRD.float() * self.scale)
        kernels = self._kernels_for(queries_BHRD)
        if kernels and not self.recall.ahead_pages:  # for which pages would have to be in the order of their promises
            known_BHPX = self._rows_of(self.known.known_BHPX, rows)
            best_BHK = kernels.best_pages(asked_BHRX, known_BHPX, torch.from_numpy(full_B), torch.from_numpy(most_B), most)
            return best_BHK.numpy(), is_chosen_BHK
        longest = int(units_B.max())
        promises_BHRU = self.known.promised(rows, asked_BHRX, int(full_B.max()))
        is_unit_BU = torch.from_numpy(np.arange(longest) < units_B[:, None]).to(promises_BHRU.device)
        worth_BHU = promises_BHRU.masked_fill(~is_unit_BU[:, None, None], -torch.inf).softmax(-1).nan_to_num().amax(2)
        worth_BHU[:, :, 0] = torch.inf
        worth_BHU = worth_BHU.masked_fill(~is_unit_BU[:, None], -1)
        order_BHU = worth_BHU.topk(min(most + self.recall.ahead_pages, longest), dim=-1).indices.cpu().numpy()
        self._ahead = self._next_units(rows, order_BHU, most_B)
        return order_BHU[:, :, :most], is_chosen_BHK

    def _next_units(self, rows: np.ndarray, order_BHU: np.ndarray, most_B: np.ndarray) -> np.ndarray:
        """The units in rank behind those that each row reads, which may be the next token's."""
        place_BHU = np.arange(order_BHU.shape[2])[None, None] - most_B[:, None, None]
        is_there_BHU = order_BHU < self.full_B[rows][:, None, None] * self.units
        found: np.ndarray = self._numbers_of(rows, order_BHU)[(place_BHU >= 0) & (place_BHU < self.recall.ahead_pages) & is_there_BHU]
        return found

    def _brought(self, numbers_BHK: torch.Tensor, is_chosen_BHK: torch.Tensor) -> torch.Tensor:
        """Where these units lie beside the model; what is none repeats one that is read anyway."""
        if not numbers_BHK.shape[2]:
            return numbers_BHK
        self.units_read += int(is_chosen_BHK.sum())
        some = numbers_BHK[is_chosen_BHK]
        numbers_BHK = torch.where(is_chosen_BHK, numbers_BHK, some[0] if len(some) else 0)
        brought: torch.Tensor = self.tier.bring(numbers_BHK)
        if len(self._ahead):
            self.tier.expect(self._ahead)
        return brought
