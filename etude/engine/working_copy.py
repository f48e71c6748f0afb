"""The copy of a model that the engine samples from: half precision, adapters merged, never trained."""

import copy
from collections.abc import Mapping

import torch
from transformers import PreTrainedModel

from etude.engine.packed import can_pack, fill, pack_linears
from etude.models.adapters import base_of, merged_weights


class WorkingCopy:
    """A model of the master's base architecture in `dtype`, with the master's (merged) weights as of the last `sync_weights`."""

    def __init__(self, master: PreTrainedModel, dtype: torch.dtype) -> None:
        self._master = master
        base = base_of(master)
        device = next(base.parameters()).device
        working = type(base)._from_config(copy.deepcopy(base.config), dtype=dtype).to(device).eval().requires_grad_(False)
        working.generation_config = base.generation_config
        self.model: PreTrainedModel = working
        self._packed = pack_linears(working) if can_pack(device, dtype) else {}
        self.sync_weights()

    @torch.no_grad()
    def sync_weights(self) -> None:
        """Copy the master's weights, with adapters merged."""
        weights = merged_weights(self._master)
        _copy_weights(weights, self.model)
        fill(self._packed, weights)

    def offload_weights(self) -> None:
        """Free packed weights, which `sync_weights` recreates."""
        for layer in self._packed.values():
            layer.clear()


def _copy_weights(weights: Mapping[str, torch.Tensor], target: PreTrainedModel) -> None:
    state = target.state_dict()
    missing = state.keys() - weights.keys()
    assert not missing, f"weights missing for {sorted(missing)[:3]}"
    torch._foreach_copy_(list(state.values()), [weights[name] for name in state])
