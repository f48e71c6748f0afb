"""A decoding step over evicting layers by one kernel call that runs all layers of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.kernels.compiled import WIDTH
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import LayerTable
from etude.kv_cache.cache_layer import LayerwiseStep
from etude.kv_cache.slots import Slots


def kernels_over(slots: Slots) -> DecodingKernels | None:
    """Return the kernels for these keys and values; None on another device, for other widths, or without a compiler."""
    return kernels_for(slots.keys_SD.device, slots.keys_SD.dtype) if _fits(slots) else None


def _fits(slots: Slots) -> bool:
    keys_SD, values_SD = slots.keys_SD, slots.values_SD
    return keys_SD.shape == values_SD.shape and keys_SD.dtype == values_SD.dtype and keys_SD.shape[1] % WIDTH == 0


@dataclass(frozen=True)
class SlotsStep(LayerwiseStep):
    """A decoding step whose layers are run by a kernel."""

    kernels: DecodingKernels

    @staticmethod
    def of(layers: Sequence[Any]) -> "SlotsStep | None":
        """Return the step of these layers, or None if the kernels do not support one of them."""
        if not all(layer.takes_kernels and layer.slots and _fits(layer.slots) for layer in layers):
            return None
        kernels = kernels_over(layers[0].slots)
        return SlotsStep(layers, kernels) if kernels else None

    def run(self, layers: LayerTable, x_NE: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> None:
        score, seen_N = self.layers[0].policy.score, torch.from_numpy(self.layers[0].seen_B)
        # add a slot to every head, for the kernel to fill with the new token
        for layer in self.layers:
            layer.make_room()
        held = [layer.expecting() for layer in self.layers]
        how = {"sums": score.sums_attention, "keeps_queries": score.window > 0}
        queries_LNHD = self.kernels.layers_over_slots(x_NE, layers, held, seen_N, cos_ND, sin_ND, **how)
        for number, layer in enumerate(self.layers):
            layer.took(None if queries_LNHD is None else queries_LNHD[number], layers.scale)
        for layer in self.layers:
            layer.evict_if_due()
