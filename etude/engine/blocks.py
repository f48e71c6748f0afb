"""Prompts whose keys and values are held once for all rows that continue them, by kernels (`etude.kernels.decoding`).

The layout is the kernels': blocks of positions, from position 0 on. Shapes: as in `etude.engine.attention`; I items: rows of one prompt
that a thread computes together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from etude.engine.attention import Attend
from etude.engine.prefill import PackedPrompts, compute_prompts
from etude.engine.protocols import Forward
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import BLOCK, GeneratedKV, KVStore, LayerTable, PrefixTable

_ROWS = 8
"""Maximum of a prompt's rows that a thread computes together; in the prefill as many as make `_QUERIES` queries."""

_QUERIES = 32

_ROOM, _LOOSE = 2, 8
"""Places of prompts have room for twice the longest one, and are made anew once that is 8 times what is used."""


class KVBlocks:
    """Keys and values of every layer, for a number of rows and positions."""

    def __init__(self, kernels: DecodingKernels, rows: int, positions: int) -> None:
        self.kernels, self.rows, self.positions = kernels, rows, _whole(positions)
        self.stores: list[KVStore] = []
        self.hidden_RTE: torch.Tensor | None = None
        """The LM head's input at each position, if it is kept. Logits are recomputed from it, since they are a hundred times as large."""

    def of(self, layer: int, like_NKD: torch.Tensor) -> KVStore:
        """Return the store of a layer, allocated at its first use. Raises NotImplementedError for a head width that kernels lack."""
        if layer == len(self.stores):
            kv_heads, width = like_NKD.shape[1:]
            if width % 16:
                raise NotImplementedError(f"the kernels' attention needs heads of a multiple of 16, not of {width}")
            self.stores.append(KVStore.of(self.rows, kv_heads, self.positions, width, like_NKD.dtype))
        return self.stores[layer]

    def keep_hidden(self, rows_N: torch.Tensor, positions_N: torch.Tensor, read_NE: torch.Tensor) -> None:
        """Keep the LM head's input at these rows and positions."""
        if self.hidden_RTE is None:
            self.hidden_RTE = read_NE.new_empty(self.rows, self.positions, read_NE.shape[-1])
        self.hidden_RTE[rows_N, positions_N] = read_NE

    def empty_like(self, rows: int, positions: int) -> "KVBlocks":
        """Allocate blocks for other rows of the same layers."""
        other = KVBlocks(self.kernels, rows, positions)
        other.stores = [KVStore.of(rows, store.kv_heads, other.positions, store.width, store.keys_RKTD.dtype) for store in self.stores]
        return other

    def repeat(self, from_N: torch.Tensor, to_N: torch.Tensor, positions: int) -> None:
        """Copy the first positions of rows to other rows."""
        for store in self.stores:
            self.kernels.repeat(store, from_N, to_N, _whole(positions))
        if self.hidden_RTE is not None:
            self.hidden_RTE[to_N, :positions] = self.hidden_RTE[from_N, :positions]

    def put(self, rows_N: torch.Tensor, other: "KVBlocks") -> None:
        """Copy the rows of `other`, which are no longer than these, into these rows."""
        for mine, its in zip(self.stores, other.stores, strict=True):
            for states, more in zip(mine.states(), its.states(), strict=True):
                states[rows_N, :, : other.positions] = more

    def only(self, rows_B: torch.Tensor, positions: int) -> "KVBlocks":
        """Copy the first positions of these rows."""
        copy = KVBlocks(self.kernels, len(rows_B), positions)
        for store in self.stores:
            copy.stores.append(KVStore(*(states[rows_B, :, : copy.positions] for states in store.states())))
        if self.hidden_RTE is not None:
            copy.hidden_RTE = self.hidden_RTE[rows_B, : copy.positions]
        return copy


@dataclass(frozen=True)
class Segment:
    """The first positions of a row of `blocks`."""

    blocks: KVBlocks
    row: int
    length: int


Segments = tuple[Segment, ...]
"""The keys and values of a prefix, in order: its prompt's, then those of each extension."""


def length_of(path: Segments) -> int:
    """Count the positions."""
    return sum(segment.length for segment in path)


def truncate(path: Segments, length: int) -> Segments:
    """Return the first `length` positions."""
    kept: list[Segment] = []
    for segment in path:
        kept.append(replace(segment, length=min(segment.length, length)))
        length -= kept[-1].length
        if length == 0:
            break
    return tuple(kept)


def last_hidden(path: Segments) -> torch.Tensor | None:
    """Return the LM head's input [E] at the last position, if it was kept."""
    blocks, place = path[-1].blocks, (path[-1].row, path[-1].length - 1)
    return None if blocks.hidden_RTE is None else blocks.hidden_RTE[place]


@dataclass
class BlockPrompts:
    """Keys and values of prompts."""

    forward: Forward
    blocks: KVBlocks
    length_P: torch.Tensor

    @staticmethod
    def prefill(
        forward: Forward, prompts: Sequence[Sequence[int]], after: Sequence[Segments] | None = None
    ) -> tuple["BlockPrompts", torch.Tensor]:
        """Compute the prompts; returns them, and the logits [P, V] after them. `after`: the segments that each prompt follows, which are
        copied, not computed.

        Raises NotImplementedError if the kernels can't be used.
        """
        parameter = next(forward.model.parameters())
        kernels = kernels_for(parameter.device, parameter.dtype)
        if kernels is None:
            raise NotImplementedError("there are no kernels")
        first_P = [length_of(path) for path in after] if after else [0] * len(prompts)
        length_P = torch.tensor([first + len(prompt) for first, prompt in zip(first_P, prompts, strict=True)])
        longest = int(length_P.max())
        blocks = _copied(after, longest) if after and any(after) else KVBlocks(kernels, len(prompts), longest)

        def attend_of(part: PackedPrompts) -> Attend:
            seen_N = part.position_N + 1

            def attend(layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
                store = blocks.of(layer, keys)
                kernels.put(store, part.prompt_N, part.position_N, keys, values)
                items = _items(part.prompt_N, max(1, _QUERIES * keys.shape[1] // queries.shape[1]))
                return kernels.attend(queries, prompts=store, seen_N=seen_N, items=items, scale=scale)

            return attend

        return BlockPrompts(forward, blocks, length_P), compute_prompts(forward, prompts, attend_of, first_P)

    @staticmethod
    def of(forward: Forward, paths: Sequence[Segments]) -> "BlockPrompts":
        """Copy each path as a prompt; nothing is computed."""
        length_P = torch.tensor([length_of(path) for path in paths])
        return BlockPrompts(forward, _copied(paths, int(length_P.max())), length_P)

    def path_of(self, prompt: int) -> Segments:
        """Return the keys and values of a prompt."""
        return (Segment(self.blocks, prompt, int(self.length_P[prompt])),)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> "BlockContext":
        return BlockContext(self, rows_B, self.blocks.empty_like(max(samples, len(rows_B)), room_tokens))

    def put(self, numbers_N: torch.Tensor, other: "BlockPrompts") -> None:
        """Copy the prompts of `other`, which are no longer than these have room, into these places."""
        self.blocks.put(numbers_N, other.blocks)
        self.length_P[numbers_N] = other.length_P

    def with_room(self, numbers: torch.Tensor, prompts: int, positions: int) -> "BlockPrompts":
        """Copy these prompts, by number, into blocks with places for `prompts` of up to `positions` tokens."""
        roomy = BlockPrompts(self.forward, self.blocks.empty_like(prompts, positions), self.length_P.new_zeros(prompts))
        roomy.put(torch.arange(len(numbers)), self.only(numbers))
        return roomy

    def only(self, prompts: torch.Tensor) -> "BlockPrompts":
        """Copy these prompts, by number."""
        length_P = self.length_P[prompts]
        return BlockPrompts(self.forward, self.blocks.only(prompts, int(length_P.max())), length_P)


class BlockContext:
    """Rows that continue prompts. Each has a slot for its generated tokens, which stays in place while rows fork and end."""

    copies = False

    def __init__(self, prompts: BlockPrompts, prompt_B: torch.Tensor, own: KVBlocks) -> None:
        """Create rows. `prompt_B`: the prompt of each, those of one prompt together; `own`: the slots."""
        self.prompts, self.prompt_B, self.own = prompts, prompt_B, own
        self._has_places = False
        """Whether the prompts are this context's own, with places that ended ones leave to new ones."""
        self.keeps_hidden = False
        """Whether hidden states are kept too, from the first token."""
        self.generated_B, self.slot_B = torch.zeros_like(prompt_B), torch.arange(len(prompt_B))
        self._is_protected_S = torch.zeros(own.rows, dtype=torch.bool)
        self._arrange()

    def __len__(self) -> int:
        return len(self.prompt_B)

    @property
    def length_B(self) -> torch.Tensor:
        """The length of each row: its prompt and its generated tokens."""
        return self._length_B + self.generated_B

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Keep only these rows: at most as many as the samples of `begin`, which allocated room for all of their tokens."""
        # a repeated row forks: its generated keys and values are copied to a free slot
        forks = torch.zeros_like(rows_B, dtype=torch.bool)
        forks[1:] = rows_B[1:] == rows_B[:-1]
        slot_B = self.slot_B[rows_B]
        if forks.any():
            free = self._free(slot_B, int(forks.sum()))
            self.own.repeat(slot_B[forks], free, int(self.generated_B.max()))
            slot_B[forks] = free
        self.slot_B, self.prompt_B, self.generated_B = slot_B, self.prompt_B[rows_B], self.generated_B[rows_B]
        # drop unused prompts once they are half of all
        used, numbers_B = self.prompt_B.unique(return_inverse=True)
        if 2 * len(used) <= len(self.prompts.length_P) and not self._has_places:
            self.prompts, self.prompt_B = self.prompts.only(used), numbers_B
        self._arrange()

    def admit(self, prompts: BlockPrompts) -> None:
        """Add a row for each of these prompts. At least as many completions must have ended, without protected rows."""
        self.enter(self.add(prompts))

    def add(self, prompts: BlockPrompts) -> torch.Tensor:
        """Copy more prompts to where no row's prompt is; returns their numbers. All are copied only where there is no room for them."""
        used, own = self.prompt_B.unique(), self.prompts
        number = len(used) + len(prompts.length_P)
        longest = int(torch.cat([own.length_P[used], prompts.length_P]).max())
        has_room = number <= own.blocks.rows and longest <= own.blocks.positions <= _LOOSE * _whole(longest)
        if not (self._has_places and has_room):
            self.prompts = own.with_room(used, max(number, self.own.rows), _ROOM * longest)
            self.prompt_B = torch.searchsorted(used, self.prompt_B)
            self._has_places = True
        is_free = torch.ones(self.prompts.blocks.rows, dtype=torch.bool).index_fill(0, self.prompt_B, False)
        free = is_free.nonzero().flatten()[: len(prompts.length_P)]
        self.prompts.put(free, prompts)
        return free

    def enter(self, prompt_N: torch.Tensor) -> None:
        """Add a row for each of these prompts, by number."""
        self.slot_B = torch.cat([self.slot_B, self._free(self.slot_B, len(prompt_N))])
        self.prompt_B = torch.cat([self.prompt_B, prompt_N])
        self.generated_B = torch.cat([self.generated_B, self.generated_B.new_zeros(len(prompt_N))])
        self._arrange()

    def protect(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Protect the slots of these rows from reuse after the rows end; returns the slots, and the number of tokens in each."""
        slots = self.slot_B[list(rows)]
        self._is_protected_S[slots] = True
        return slots.tolist(), self.generated_B[list(rows)].tolist()

    def _free(self, used_B: torch.Tensor, number: int) -> torch.Tensor:
        """Return free slots. Raises ValueError if there are too few."""
        is_free = (~self._is_protected_S).index_fill(0, used_B, False).nonzero().flatten()
        if len(is_free) < number:
            raise ValueError(f"{number} more rows need a slot, but only {len(is_free)} are free")
        return is_free[:number]

    def _arrange(self) -> None:
        """Rebuild the tables of the current rows."""
        self._rows_B = torch.arange(len(self))
        self._length_B = self.prompts.length_P[self.prompt_B]
        items = _items(self.prompt_B, _ROWS)
        self._prefixes = PrefixTable(self.prompts.blocks.stores, self.own.stores, self._length_B, items, self.slot_B)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        if int(self.generated_B.max()) >= self.own.positions:
            raise ValueError(f"a row has no room for another token: all {self.own.positions} positions are used")
        attend = TokenAttend(self.own.kernels, self._prefixes, self.generated_B)
        keep_hidden = partial(self.own.keep_hidden, self.slot_B, self.generated_B) if self.keeps_hidden else None
        logits_BV = self.prompts.forward.logits(tokens_B, self.length_B, attend, self._rows_B, keep_hidden)
        self.generated_B = self.generated_B + 1
        return logits_BV


@dataclass(frozen=True)
class TokenAttend:
    """The `Attend` of a decoding step."""

    kernels: DecodingKernels
    prefixes: PrefixTable
    generated_B: torch.Tensor

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        table = self.prefixes
        own = GeneratedKV(keys, values, table.own[layer], table.slot_N, self.generated_B)
        return self.kernels.attend(queries, prompts=table.prompts[layer], seen_N=table.seen_N, items=table.items, scale=scale, own=own)

    def run(self, layers: LayerTable, x_NE: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> None:
        self.kernels.layers(x_NE, layers, self.prefixes, self.generated_B, cos_ND, sin_ND)


def _copied(paths: Sequence[Segments], positions: int) -> KVBlocks:
    """Copy each path into a row with room for `positions` positions; at least one path is not empty."""
    blocks = next(path for path in paths if path)[0].blocks.empty_like(len(paths), positions)
    sources: dict[int, tuple[KVBlocks, list[tuple[int, int, int, int]]]] = {}
    for number, path in enumerate(paths):
        start = 0
        for segment in path:
            _, places = sources.setdefault(id(segment.blocks), (segment.blocks, []))
            places += [(segment.row, position, number, start + position) for position in range(segment.length)]
            start += segment.length
    for source, places in sources.values():
        rows_N, positions_N, to_rows_N, to_positions_N = torch.tensor(places).view(-1, 4).T.contiguous()
        for store, to in zip(source.stores, blocks.stores, strict=True):
            blocks.kernels.copy(store, rows_N, positions_N, to, to_rows_N, to_positions_N)
    return blocks


def _items(prompt_N: torch.Tensor, rows: int) -> torch.Tensor:
    """Cut rows into items [I, 3] for threads: a prompt, and the first and the end of up to `rows` rows of it, which stand together."""
    items, first = [], 0
    for prompt, count in zip(*(found.tolist() for found in prompt_N.unique_consecutive(return_counts=True)), strict=True):
        items += [(prompt, start, min(start + rows, first + count)) for start in range(first, first + count, rows)]
        first += count
    return torch.tensor(items)


def _whole(positions: int) -> int:
    """Round positions up to whole blocks."""
    return -(-positions // BLOCK) * BLOCK
