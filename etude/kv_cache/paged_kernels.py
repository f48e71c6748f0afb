"""Kernel calls for paged layers: a decoding step over all layers in one call, or the attention of one layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from etude.kernels.compiled import WIDTH
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import LayerTable, PageTable
from etude.kv_cache.cache_layer import LayerwiseStep
from etude.kv_cache.page_store import PageStore


def kernels_over(pages: PageStore, queries_BHRD: torch.Tensor) -> DecodingKernels | None:
    """Return the kernels that select and read these pages; None on another device, for other widths, or without a compiler."""
    fits = queries_BHRD.shape[-1] % WIDTH == 0 and queries_BHRD.dtype == pages.open_BH2TD.dtype
    return kernels_for(queries_BHRD.device, queries_BHRD.dtype) if fits else None


@dataclass(frozen=True)
class PagesStep(LayerwiseStep):
    """A decoding step whose layers are run by a kernel; all pages are on the model's device."""

    kernels: DecodingKernels

    @staticmethod
    def of(layers: Sequence[Any]) -> "PagesStep | None":
        """Return the step of these layers, or None if a layer's pages are offloaded."""
        if not all(_is_near(layer.pages) for layer in layers):
            return None
        opened = layers[0].pages.open_BH2TD
        kernels = kernels_for(opened.device, opened.dtype)
        return PagesStep(layers, kernels) if kernels else None

    def run(self, layers: LayerTable, x_NE: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> None:
        held = [_table_of(layer) for layer in self.layers]
        self.kernels.layers_over_pages(x_NE, layers, held, cos_ND, sin_ND)
        for layer, table in zip(self.layers, held, strict=True):
            layer.pages.known.known_BHPX, layer.pages.open_BH2TD = table.known_BHPX, table.open_BH2TD
            layer.forward.scales[layer.number] = layers.scale
            layer.width += 1


def _is_near(pages: PageStore) -> bool:
    like = pages.open_BH2TD
    return pages.pool is None and like.shape[-1] % WIDTH == 0 and pages.storage.pages_P2TD.device == like.device


def _table_of(layer: Any) -> PageTable:
    """Count a new token in every row; returns the layer's pages with a place for it, and what its queries read."""
    pages, selection = layer.pages, layer.selection
    layer.forward.check_open()
    rows = np.arange(len(pages.tokens_B))
    pages.add_token(rows)
    reads_B = selection.reads_B(pages, rows)
    selection.units_read += int(reads_B.sum()) * pages.numbers_BHP.shape[1]
    selection.generated_B += 1
    full_B, open_B, read_B = (torch.from_numpy(np.ascontiguousarray(own)) for own in (pages.full_B, pages.open_B, reads_B))
    pages.numbers_BHP, pages.times_BHP = (np.ascontiguousarray(own) for own in (pages.numbers_BHP, pages.times_BHP))
    places, times = torch.from_numpy(pages.numbers_BHP), torch.from_numpy(pages.times_BHP)
    states = pages.storage.pages_P2TD, pages.known.known_BHPX, pages.open_BH2TD
    return PageTable(*states, places, times, full_B, open_B, read_B, pages.known.directions_BHDX)
