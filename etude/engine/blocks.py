"""Prompts whose keys and values are kept once for all rows that continue them, by kernels (`etude.kernels.decoding`).

The layout is the kernels': blocks of positions, beginning at 0. Shapes: as in `etude.engine.attention`; I items: rows of one prompt that a
thread computes together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from etude.engine.attention import Attend
from etude.engine.context import Forward, Part, compute_prompts
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import BLOCK, Behind, Layers, Own, Store

_ROWS = 8
"""Rows of a prompt that a thread computes together, at most; while prompts are computed as many as make `_QUERIES`."""

_QUERIES = 32


class Blocks:
    """Keys and values of every layer, for so many rows and positions."""

    def __init__(self, kernels: DecodingKernels, rows: int, positions: int) -> None:
        self.kernels, self.rows, self.positions = kernels, rows, _whole(positions)
        self.stores: list[Store] = []
        self.reads_RTE: torch.Tensor | None = None
        """What the LM head reads at each position, where it is kept: logits are made of it again, which themselves are a hundred times as
        large."""

    def of(self, layer: int, like_NKD: torch.Tensor) -> Store:
        """The store of a layer, whose first use is with keys like these."""
        if layer == len(self.stores):
            kv_heads, width = like_NKD.shape[1:]
            if width % 16:
                raise NotImplementedError(f"the kernels' attention needs heads of a multiple of 16, not of {width}")
            self.stores.append(Store.of(self.rows, kv_heads, self.positions, width, like_NKD.dtype))
        return self.stores[layer]

    def keep_read(self, rows_N: torch.Tensor, positions_N: torch.Tensor, read_NE: torch.Tensor) -> None:
        """What the LM head reads at these rows and positions."""
        if self.reads_RTE is None:
            self.reads_RTE = read_NE.new_empty(self.rows, self.positions, read_NE.shape[-1])
        self.reads_RTE[rows_N, positions_N] = read_NE

    def beside(self, rows: int, positions: int) -> "Blocks":
        """Room for other rows of the same layers."""
        other = Blocks(self.kernels, rows, positions)
        other.stores = [Store.of(rows, store.kv_heads, other.positions, store.width, store.keys_RKTD.dtype) for store in self.stores]
        return other

    def repeat(self, from_N: torch.Tensor, to_N: torch.Tensor, positions: int) -> None:
        """Copy these rows' first positions to other rows."""
        for store in self.stores:
            self.kernels.repeat(store, from_N, to_N, _whole(positions))
        if self.reads_RTE is not None:
            self.reads_RTE[to_N, :positions] = self.reads_RTE[from_N, :positions]

    def with_more(self, other: "Blocks") -> "Blocks":
        """A copy with the rows of another behind."""
        both = Blocks(self.kernels, self.rows + other.rows, max(self.positions, other.positions))
        for mine, its in zip(self.stores, other.stores, strict=True):
            store = Store.of(both.rows, mine.kv_heads, both.positions, mine.width, mine.keys_RKTD.dtype)
            for states, first, second in zip(store.states(), mine.states(), its.states(), strict=True):
                states[: self.rows, :, : self.positions], states[self.rows :, :, : other.positions] = first, second
            both.stores.append(store)
        return both

    def only(self, rows_B: torch.Tensor, positions: int) -> "Blocks":
        """A copy of these rows' first positions."""
        copy = Blocks(self.kernels, len(rows_B), positions)
        for store in self.stores:
            copy.stores.append(Store(*(states[rows_B, :, : copy.positions] for states in store.states())))
        if self.reads_RTE is not None:
            copy.reads_RTE = self.reads_RTE[rows_B, : copy.positions]
        return copy


@dataclass(frozen=True)
class Stretch:
    """Positions of a row from its first on."""

    blocks: Blocks
    row: int
    length: int


Path = tuple[Stretch, ...]
"""What a prefix has behind it, in order: its prompt's keys and values, and those of what was drawn."""


def length_of(path: Path) -> int:
    return sum(stretch.length for stretch in path)


def beginning(path: Path, length: int) -> Path:
    """The first `length` positions."""
    kept: list[Stretch] = []
    for stretch in path:
        kept.append(replace(stretch, length=min(stretch.length, length)))
        length -= kept[-1].length
        if length == 0:
            break
    return tuple(kept)


def last_read(path: Path) -> torch.Tensor | None:
    """What the LM head reads at the last position, [E], if it was kept."""
    blocks, place = path[-1].blocks, (path[-1].row, path[-1].length - 1)
    return None if blocks.reads_RTE is None else blocks.reads_RTE[place]


@dataclass
class BlockPrompts:
    """Keys and values of prompts."""

    forward: Forward
    blocks: Blocks
    length_P: torch.Tensor

    @staticmethod
    def prefill(
        forward: Forward, prompts: Sequence[Sequence[int]], behind: Sequence[Path] | None = None
    ) -> tuple["BlockPrompts", torch.Tensor]:
        """The prompts, and the logits [P, V] of what follows them; `behind`: what each of them follows, which is copied, not computed.
        Raises `NotImplementedError` where the kernels can't be used.
        """
        parameter = next(forward.model.parameters())
        kernels = kernels_for(parameter.device, parameter.dtype)
        if kernels is None:
            raise NotImplementedError("there are no kernels")
        first_P = [length_of(path) for path in behind] if behind else [0] * len(prompts)
        length_P = torch.tensor([first + len(prompt) for first, prompt in zip(first_P, prompts, strict=True)])
        longest = int(length_P.max())
        blocks = _copied(behind, longest) if behind and any(behind) else Blocks(kernels, len(prompts), longest)

        def attend_of(part: Part) -> Attend:
            seen_N = part.position_N + 1

            def attend(layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
                store = blocks.of(layer, keys)
                kernels.put(store, part.prompt_N, part.position_N, keys, values)
                items = _items(part.prompt_N, max(1, _QUERIES * keys.shape[1] // queries.shape[1]))
                return kernels.attend(queries, prompts=store, seen_N=seen_N, items=items, scale=scale)

            return attend

        return BlockPrompts(forward, blocks, length_P), compute_prompts(forward, prompts, attend_of, first_P)

    @staticmethod
    def of(forward: Forward, paths: Sequence[Path]) -> "BlockPrompts":
        """Each path as a prompt: a copy, nothing is computed."""
        length_P = torch.tensor([length_of(path) for path in paths])
        return BlockPrompts(forward, _copied(paths, int(length_P.max())), length_P)

    def path_of(self, prompt: int) -> Path:
        """What follows this prompt has behind it."""
        return (Stretch(self.blocks, prompt, int(self.length_P[prompt])),)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> "BlockContext":
        return BlockContext(self, rows_B, self.blocks.beside(max(samples, len(rows_B)), room_tokens))

    def with_more(self, other: "BlockPrompts") -> "BlockPrompts":
        """The prompts of another behind these."""
        return BlockPrompts(self.forward, self.blocks.with_more(other.blocks), torch.cat([self.length_P, other.length_P]))

    def only(self, prompts: torch.Tensor) -> "BlockPrompts":
        """These prompts, by number."""
        length_P = self.length_P[prompts]
        return BlockPrompts(self.forward, self.blocks.only(prompts, int(length_P.max())), length_P)


class BlockContext:
    """Rows that continue prompts, with what each has drawn, which stays where it is while rows fork and end."""

    copies = False

    def __init__(self, prompts: BlockPrompts, prompt_B: torch.Tensor, own: Blocks) -> None:
        """`prompt_B`: the prompt that each row continues, ascending."""
        self.prompts, self.prompt_B, self.own = prompts, prompt_B, own
        self.keeps_reads = False
        """Whether what the LM head reads is kept too, from the first token on."""
        self.drawn_B, self.slot_B = torch.zeros_like(prompt_B), torch.arange(len(prompt_B))
        self._is_held_S = torch.zeros(own.rows, dtype=torch.bool)
        self._arrange()

    def __len__(self) -> int:
        return len(self.prompt_B)

    @property
    def length_B(self) -> torch.Tensor:
        """Tokens of each row: its prompt's, and what it has drawn."""
        return self._length_B + self.drawn_B

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """As many rows at most as there were completions to begin with, which also had room for all of their tokens."""
        forks = torch.zeros_like(rows_B, dtype=torch.bool)
        forks[1:] = rows_B[1:] == rows_B[:-1]
        slot_B = self.slot_B[rows_B]
        if forks.any():
            free = self._free(slot_B, int(forks.sum()))
            self.own.repeat(slot_B[forks], free, int(self.drawn_B.max()))
            slot_B[forks] = free
        self.slot_B, self.prompt_B, self.drawn_B = slot_B, self.prompt_B[rows_B], self.drawn_B[rows_B]
        used, numbers_B = self.prompt_B.unique(return_inverse=True)
        if 2 * len(used) <= len(self.prompts.length_P):  # memory of those that nobody continues
            self.prompts, self.prompt_B = self.prompts.only(used), numbers_B
        self._arrange()

    def admit(self, prompts: BlockPrompts) -> None:
        """A row for each of these prompts too, behind the others; so many completions must be over, and their rows not kept."""
        first = len(self.prompts.length_P)
        self.prompts = self.prompts.with_more(prompts)
        self.enter(torch.arange(first, len(self.prompts.length_P)))

    def enter(self, prompt_N: torch.Tensor) -> None:
        """A row for each of these of the prompts too, behind the others."""
        self.slot_B = torch.cat([self.slot_B, self._free(self.slot_B, len(prompt_N))])
        self.prompt_B = torch.cat([self.prompt_B, prompt_N])
        self.drawn_B = torch.cat([self.drawn_B, self.drawn_B.new_zeros(len(prompt_N))])
        self._arrange()

    def hold(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """What these rows have drawn is not written over, when they are no longer kept; returns where it lies, and how long it is."""
        slots = self.slot_B[list(rows)]
        self._is_held_S[slots] = True
        return slots.tolist(), self.drawn_B[list(rows)].tolist()

    def _free(self, used_B: torch.Tensor, number: int) -> torch.Tensor:
        is_free = (~self._is_held_S).index_fill(0, used_B, False).nonzero().flatten()
        if len(is_free) < number:
            raise ValueError(f"{number} more rows want a place, but only {len(is_free)} are free")
        return is_free[:number]

    def _arrange(self) -> None:
        """What follows from which rows there are."""
        self._rows_B = torch.arange(len(self))
        self._length_B = self.prompts.length_P[self.prompt_B]
        items = _items(self.prompt_B, _ROWS)
        self._behind = Behind(self.prompts.blocks.stores, self.own.stores, self._length_B, items, self.slot_B)

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        if int(self.drawn_B.max()) >= self.own.positions:
            raise ValueError(f"a row has no room for another token: {self.own.positions} positions are drawn")
        attend = OneToken(self.own.kernels, self._behind, self.drawn_B)
        keep_read = partial(self.own.keep_read, self.slot_B, self.drawn_B) if self.keeps_reads else None
        logits_BV = self.prompts.forward.logits(tokens_B, self.length_B, attend, self._rows_B, keep_read)
        self.drawn_B = self.drawn_B + 1
        return logits_BV


@dataclass(frozen=True)
class OneToken:
    """The `Attend` of a decoding step."""

    kernels: DecodingKernels
    behind: Behind
    drawn_B: torch.Tensor

    def __call__(self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> torch.Tensor:
        behind = self.behind
        own = Own(keys, values, behind.own[layer], behind.slot_N, self.drawn_B)
        return self.kernels.attend(queries, prompts=behind.prompts[layer], seen_N=behind.seen_N, items=behind.items, scale=scale, own=own)

    def run(self, layers: Layers, x_NE: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> None:
        self.kernels.layers(x_NE, layers, self.behind, self.drawn_B, cos_ND, sin_ND)


def _copied(paths: Sequence[Path], positions: int) -> Blocks:
    """A row for each path, with room for so many positions; one at least is not empty."""
    blocks = next(path for path in paths if path)[0].blocks.beside(len(paths), positions)
    sources: dict[int, tuple[Blocks, list[tuple[int, int, int, int]]]] = {}
    for number, path in enumerate(paths):
        start = 0
        for stretch in path:
            _, places = sources.setdefault(id(stretch.blocks), (stretch.blocks, []))
            places += [(stretch.row, position, number, start + position) for position in range(stretch.length)]
            start += stretch.length
    for source, places in sources.values():
        rows_N, positions_N, to_rows_N, to_positions_N = torch.tensor(places).view(-1, 4).T.contiguous()
        for store, to in zip(source.stores, blocks.stores, strict=True):
            blocks.kernels.copy(store, rows_N, positions_N, to, to_rows_N, to_positions_N)
    return blocks


def _items(prompt_N: torch.Tensor, rows: int) -> torch.Tensor:
    """[I, 3]: a prompt, and the first and the end of up to so many rows of it; `prompt_N` ascending."""
    items, first = [], 0
    for prompt, count in zip(*(found.tolist() for found in prompt_N.unique_consecutive(return_counts=True)), strict=True):
        items += [(prompt, start, min(start + rows, first + count)) for start in range(first, first + count, rows)]
        first += count
    return torch.tensor(items)


def _whole(positions: int) -> int:
    """Positions of blocks that have room for so many."""
    return -(-positions // BLOCK) * BLOCK
