"""The kernels of `decoding.cpp`: the decoding steps of small models.

A decoding step has about a thousand operations between its matrix products, each a call, a pass over memory and a barrier for all threads.
The kernels fuse them into a few. Shapes: as in `etude.engine.attention`; S concatenated heads of queries, keys and values.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from etude.kernels.compiled import AT, DTYPES, NUMBER, REAL, WIDTH, at, in_both, library
from etude.kernels.huge_pages import Chunks
from etude.kernels.tables import BLOCK, GeneratedKV, KVStore, LayerTable, PageTable, PrefixTable, SlotTable, alike


def kernels_for(device: torch.device, dtype: torch.dtype) -> "DecodingKernels | None":
    """Return the kernels for tensors of a precision. Returns None, with one warning, if there are none."""
    return _kernels().get(dtype) if device.type == "cpu" and dtype in DTYPES else None


class DecodingKernels:
    """Operations on tensors of one precision on a CPU. The last dimension of every tensor is contiguous."""

    def __init__(self, found: ctypes.CDLL, name: str) -> None:
        self._put, self._copy, self._repeat, self._attend, self._rms_norm, self._rotate = (
            getattr(found, f"{kernel}_{name}") for kernel in ("put", "copy", "repeat", "attend", "rms_norm", "rotate")
        )
        self._attend_slots, self._best_pages, self._attend_pages = (
            getattr(found, f"{kernel}_{name}") for kernel in ("attend_slots", "best_pages", "attend_pages")
        )
        self._sample, self._best, self._weighted_sums = (
            getattr(found, f"{kernel}_{name}") for kernel in ("sample", "best", "weighted_sums")
        )
        is_half = name == "bfloat16"
        self.numbers: int = found.numbers_of_vector()
        """Number of values in a vector of this processor."""
        self._product: Any = getattr(found, f"product_{name}")
        self._panels: Any = None if is_half else found.panels_float32
        self._layers: Any = found.layers_bfloat16 if is_half else None
        self._layers_over_slots: Any = found.layers_over_slots_bfloat16 if is_half else None
        self._layers_over_pages: Any = found.layers_over_pages_bfloat16 if is_half else None
        self._chunks = Chunks()
        self.product_rows = 256 if is_half and found.has_tiles() else 4 if is_half else 0
        """Maximum rows for which `product`, and so `layers`, is no slower than oneDNN (SmolLM2-135M, 2 cores with AMX, and without)."""

    def rms_norm(self, x_NE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Compute x / √(mean x² + ε) · weight, rounded once."""
        found = torch.empty_like(x_NE)
        self._rms_norm(at(x_NE), *x_NE.shape, at(weight_E), epsilon, at(found))
        return found

    def rotate(
        self,
        states_NSD: torch.Tensor,
        heads: int,
        kv_heads: int,
        cos_ND: torch.Tensor,
        sin_ND: torch.Tensor,
        norms: tuple[torch.Tensor, torch.Tensor] | None,
        epsilon: float,
    ) -> None:
        """Apply rotary embeddings in place to queries and keys, the first H + K of the S heads of a row: x cos + (-x₂, x₁) sin.

        `norms`: weights [D] of the RMSNorms of queries and keys before that.
        """
        rows, row = states_NSD.shape[0], states_NSD.stride(0)
        weights = (None, None) if norms is None else tuple(map(at, norms))
        self._rotate(at(states_NSD), rows, row, heads, kv_heads, cos_ND.shape[-1], at(cos_ND), at(sin_ND), *weights, epsilon)

    def put(
        self, store: KVStore, rows_N: torch.Tensor, positions_N: torch.Tensor, keys_NKD: torch.Tensor, values_NKD: torch.Tensor
    ) -> None:
        """Store keys and values at these rows and positions."""
        keys_NKD, values_NKD = alike(keys_NKD, values_NKD)
        number, kv_heads, width = keys_NKD.shape
        places = at(rows_N), at(positions_N), number
        self._put(*store.arguments, *places, at(keys_NKD), at(values_NKD), *keys_NKD.stride()[:2], kv_heads, width)

    def copy(
        self,
        store: KVStore,
        rows_N: torch.Tensor,
        positions_N: torch.Tensor,
        to: KVStore,
        to_rows_N: torch.Tensor,
        to_positions_N: torch.Tensor,
    ) -> None:
        """Copy positions of rows into another store."""
        places = *store.arguments, at(rows_N), at(positions_N), *to.arguments, at(to_rows_N), at(to_positions_N)
        self._copy(*places, len(rows_N), store.kv_heads, store.width)

    def repeat(self, store: KVStore, from_N: torch.Tensor, to_N: torch.Tensor, positions: int) -> None:
        """Copy the first positions of rows to other rows."""
        for states in store.states():
            row, head, _, width = states.stride()[0], states.stride()[1], *states.shape[2:]
            self._repeat(at(states), row, head, at(from_N), at(to_N), len(from_N), store.kv_heads, positions * width)

    def product(
        self, x_NE: torch.Tensor, weights: torch.Tensor, bias: torch.Tensor | None, then: str, other: torch.Tensor | None
    ) -> torch.Tensor:
        """Compute then(x Wᵀ + b, other), rounded once. `weights`: laid out by `in_blocks`, or by `in_panels` in float32; `then`: of
        `THEN`."""
        outputs, width = weights.shape
        found = x_NE.new_empty(*x_NE.shape[:-1], outputs)
        given = (None if part is None else at(part) for part in (bias, other))
        self._product(at(x_NE), found.numel() // outputs, width, at(weights), outputs, next(given), THEN[then], next(given), at(found))
        return found

    def in_blocks(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Lay out a bfloat16 weight [out, in] for `product`: outputs in blocks, like positions of keys. Returns None if it does not fit."""
        outputs, width = weight.shape
        if outputs % BLOCK or width % 32:
            return None
        pairs = weight.contiguous().view(torch.int32).view(outputs // self.numbers, self.numbers, width // 2)
        found = self._chunks.zeros(outputs, width, dtype=weight.dtype)
        found.view(torch.int32).view(outputs // self.numbers, width // 2, self.numbers).copy_(pairs.transpose(1, 2))
        return found

    def in_panels(self, weight: torch.Tensor) -> torch.Tensor | None:
        """Lay out a float32 weight [out, in] for `product`. Returns None in half precision, and if it does not fit."""
        if self._panels is None or len(weight) % WIDTH:
            return None
        weight = weight.detach().contiguous()
        found = self._chunks.zeros(*weight.shape, dtype=weight.dtype)
        self._panels(at(weight), *weight.shape, at(found))
        return found

    def attend(
        self,
        queries_NHD: torch.Tensor,
        *,
        prompts: KVStore,
        seen_N: torch.Tensor,
        items: torch.Tensor,
        scale: float,
        own: GeneratedKV | None = None,
    ) -> torch.Tensor:
        """Compute softmax attention [N, H, D] of every row over the first `seen_N` positions of its prompt, and over its own.

        `items` [I, 3]: a prompt, and the first and the end of the rows for which a thread reads it once.
        """
        queries_NHD = queries_NHD if queries_NHD.stride(-1) == 1 else queries_NHD.contiguous()
        rows, heads, width = queries_NHD.shape
        read_NHD = torch.empty(rows, heads, width, dtype=queries_NHD.dtype)
        mine = own.arguments() if own else (None, None, 0, 0, None, None, 0, None, None)
        self._attend(
            *(at(queries_NHD), *queries_NHD.stride()[:2], *mine, *prompts.arguments, at(seen_N), at(items), len(items)),
            *(heads, prompts.kv_heads, width, scale, at(read_NHD)),
        )
        return read_NHD

    def layers(
        self,
        x_NE: torch.Tensor,
        layers: LayerTable,
        prefixes: PrefixTable,
        generated_N: torch.Tensor,
        cos_ND: torch.Tensor,
        sin_ND: torch.Tensor,
    ) -> None:
        """Run all layers of a decoding step, with a token for each row after `generated_N` own tokens; the output replaces `x_NE`."""
        assert self._layers is not None
        prompts, own = prefixes.prompts[0], prefixes.own[0]
        places = *own.arguments[2:], *prompts.arguments[2:], at(prefixes.slot_N), at(generated_N), at(prefixes.seen_N), at(prefixes.items)
        given = at(x_NE), len(x_NE), at(layers.table), at(prefixes.table), len(layers.table), *layers.sizes
        self._layers(*given, *places, len(prefixes.items), at(cos_ND), at(sin_ND), layers.epsilon, layers.scale)

    def attend_slots(self, queries_BHRD: torch.Tensor, held: SlotTable, scale: float, *, sums: bool = False) -> torch.Tensor:
        """Compute softmax attention [B, H, R, D] of every row and head over its slots. `sums`: add to each slot the attention that it
        received, averaged over the heads that share it.
        """
        rows, heads, share, width = queries_BHRD.shape
        queries_BND = queries_BHRD.flatten(1, 2)
        queries_BND = queries_BND if queries_BND.stride(-1) == 1 else queries_BND.contiguous()
        read_BHRD = torch.empty(rows, heads, share, width, dtype=queries_BND.dtype)
        sizes = rows, heads * share, heads, width, scale, sums
        self._attend_slots(at(queries_BND), *queries_BND.stride()[:2], at(held.table), *sizes, at(read_BHRD))
        return read_BHRD

    def best_pages(
        self, asked_BHRX: torch.Tensor, known_BHPX: torch.Tensor, full_B: torch.Tensor, reads_B: torch.Tensor, most: int
    ) -> torch.Tensor:
        """Select the pages to read [B, H, `most`] from the `full_B` first pages of each row: the first page and those of the highest score,
        `reads_B` in all, in order, padded with 0.

        The score of a page is its largest share, over the queries of a head, in the softmax of their products with the summaries of pages
        (X a multiple of `WIDTH`). If summaries are words of sketches, 32 bits each, single keys are scored and selected.
        """
        rows, heads, share, numbers = asked_BHRX.shape
        asked_BHRX, known_BHPX = asked_BHRX.float().contiguous(), known_BHPX.contiguous()
        chosen_BHK = torch.empty(rows, heads, most, dtype=torch.long)
        known = at(known_BHPX), known_BHPX.dtype == torch.int32, known_BHPX.shape[2]
        self._best_pages(at(asked_BHRX), *known, at(full_B), at(reads_B), rows, heads * share, heads, numbers, most, at(chosen_BHK))
        return chosen_BHK

    def attend_pages(
        self,
        queries_BHRD: torch.Tensor,
        pages_P2TD: torch.Tensor,
        place_BHK: torch.Tensor,
        reads_B: torch.Tensor,
        open_BH2TD: torch.Tensor,
        open_B: torch.Tensor,
        scale: float,
        *,
        unit_tokens: int | None = None,
    ) -> torch.Tensor:
        """Compute softmax attention [B, H, R, D] of every row and head over `reads_B` pages, by their places, and `open_B` tokens of its
        open page. `unit_tokens`: size of the parts of pages that are read and that places count.
        """
        rows, heads, share, width = queries_BHRD.shape
        queries_BHRD, open_BH2TD, place_BHK = queries_BHRD.contiguous(), open_BH2TD.contiguous(), place_BHK.contiguous()
        read_BHRD = torch.empty(rows, heads, share, width, dtype=queries_BHRD.dtype)
        tokens = pages_P2TD.shape[2]
        chosen = at(pages_P2TD), tokens, unit_tokens or tokens, at(place_BHK), at(reads_B), place_BHK.shape[2]
        sizes = open_BH2TD.shape[3], rows, heads * share, heads, width, scale
        self._attend_pages(at(queries_BHRD), *chosen, at(open_BH2TD), at(open_B), *sizes, at(read_BHRD))
        return read_BHRD

    def layers_over_slots(
        self,
        x_NE: torch.Tensor,
        layers: LayerTable,
        held: Sequence[SlotTable],
        seen_N: torch.Tensor,
        cos_ND: torch.Tensor,
        sin_ND: torch.Tensor,
        *,
        sums: bool,
        keeps_queries: bool,
    ) -> torch.Tensor | None:
        """Run all layers like `layers`, over the slots of each layer. The new token, at position `seen_N` of its row, takes the last slot,
        which is already counted. Returns the queries [L, N, H, D] of all layers if they are kept.
        """
        assert self._layers_over_slots is not None
        _, _, heads, _, width = layers.sizes
        queries_LNHD = x_NE.new_empty(len(held), len(x_NE), heads, width) if keeps_queries else None
        table = torch.cat([each.table for each in held])
        given = at(x_NE), len(x_NE), at(layers.table), at(table), len(layers.table), *layers.sizes, at(seen_N), at(cos_ND), at(sin_ND)
        self._layers_over_slots(*given, layers.epsilon, layers.scale, sums, None if queries_LNHD is None else at(queries_LNHD))
        return queries_LNHD

    def layers_over_pages(
        self, x_NE: torch.Tensor, layers: LayerTable, held: Sequence[PageTable], cos_ND: torch.Tensor, sin_ND: torch.Tensor
    ) -> None:
        """Run all layers like `layers`, over the pages of each layer's table. The new token, which is already counted, becomes the last of
        its row's open page.
        """
        assert self._layers_over_pages is not None
        table = torch.cat([each.table for each in held])
        given = at(x_NE), len(x_NE), at(layers.table), at(table), len(layers.table), *layers.sizes, at(cos_ND), at(sin_ND)
        self._layers_over_pages(*given, layers.epsilon, layers.scale)

    def sample(
        self, logits_BV: torch.Tensor, temperature: float, uniform_N: torch.Tensor | None, row_N: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample tokens like `etude.engine.sampling.sample` without top-k, top-p and min-p; greedily if `uniform_N` is None."""
        logits_BV, row_N = logits_BV.contiguous(), row_N.contiguous()
        uniform_N = None if uniform_N is None else uniform_N.double().contiguous()
        tokens_N, logprobs_N = torch.empty(len(row_N), dtype=torch.long), torch.empty(len(row_N), dtype=torch.float32)
        uniforms = None if uniform_N is None else at(uniform_N)
        self._sample(at(logits_BV), *logits_BV.shape, 1 / temperature, uniforms, at(row_N), len(row_N), at(tokens_N), at(logprobs_N))
        return tokens_N, logprobs_N

    def best(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """Return the token [B] of the highest logit of each row, the first of several."""
        logits_BV, tokens_B = logits_BV.contiguous(), torch.empty(len(logits_BV), dtype=torch.long)
        self._best(at(logits_BV), *logits_BV.shape, at(tokens_B))
        return tokens_B

    def weighted_sums(self, logits_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
        """Return the sum [G, V] of each group's rows times their weights, float32."""
        logits_BV, group_B, weight_B = logits_BV.contiguous(), group_B.contiguous(), weight_B.float().contiguous()
        found_GV = torch.empty(groups, logits_BV.shape[-1], dtype=torch.float32)
        self._weighted_sums(at(logits_BV), *logits_BV.shape, at(group_B), at(weight_B), groups, at(found_GV))
        return found_GV


THEN = {"none": 0, "add": 1, "mul": 2, "swish": 3}
"""Operations after a product: nothing, plus or times another tensor, SiLU."""


@cache
def _kernels() -> dict[torch.dtype, DecodingKernels]:
    """Load the kernels once, since they are needed at every token; empty if there are none."""
    store = [AT, AT, NUMBER]
    declared: dict[str, list[Any]] = {
        "put": [*store, AT, AT, NUMBER, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER],
        "copy": [*store, AT, AT, *store, AT, AT, NUMBER, NUMBER, NUMBER],
        "attend": [AT, NUMBER, NUMBER, AT, AT, NUMBER, NUMBER, *store, AT, AT, *store, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER, REAL, AT],
        "attend_slots": [AT, NUMBER, NUMBER, AT, NUMBER, NUMBER, NUMBER, NUMBER, REAL, NUMBER, AT],
        "best_pages": [AT, AT, ctypes.c_int, NUMBER, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, AT],
        "attend_pages": [AT, AT, NUMBER, NUMBER, AT, AT, NUMBER, AT, AT, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, REAL, AT],
        "rms_norm": [AT, NUMBER, NUMBER, AT, REAL, AT],
        "rotate": [AT, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, AT, AT, AT, AT, REAL],
        "sample": [AT, NUMBER, NUMBER, REAL, AT, AT, NUMBER, AT, AT],
        "best": [AT, NUMBER, NUMBER, AT],
        "weighted_sums": [AT, NUMBER, NUMBER, AT, AT, NUMBER, AT],
        "repeat": [AT, NUMBER, NUMBER, AT, AT, NUMBER, NUMBER, NUMBER],
    }
    product = [AT, NUMBER, NUMBER, AT, NUMBER, AT, ctypes.c_int, AT, AT]
    of_one = {
        "panels_float32": [AT, NUMBER, NUMBER, AT],
        "layers_bfloat16": [AT, NUMBER, AT, AT, *[NUMBER] * 8, AT, AT, AT, AT, NUMBER, AT, AT, REAL, REAL],
        "layers_over_slots_bfloat16": [AT, NUMBER, AT, AT, *[NUMBER] * 6, AT, AT, AT, REAL, REAL, NUMBER, AT],
        "layers_over_pages_bfloat16": [AT, NUMBER, AT, AT, *[NUMBER] * 6, AT, AT, REAL, REAL],
    }
    found = library("decoding.cpp", in_both({**declared, "product": product}) | of_one)
    if found is None:
        return {}
    return {dtype: DecodingKernels(found, name) for dtype, name in DTYPES.items()}
