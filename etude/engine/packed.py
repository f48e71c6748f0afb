"""Linear layers whose half-precision weights are kept in the layout of the processor's matrix product.

oneDNN reorders a weight at every product, which for the few rows of a decoding step takes as long as the product itself. The working copy's
weights change only when the policy does, so they are reordered then. The results are the same, 1.4 to 2.2 times as fast for 8 to 128 rows
of SmolLM2-135M on 2 cores with AMX, 1.1 to 1.7 times on 2 without. For a decoding step etude's kernel is faster still and needs another
layout: weights are kept in both.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from etude.kernels.decoding import DecodingKernels, kernels_for

_ROWS = 64
"""Number of rows for which the layout is chosen; other numbers use it too."""

_pointwise: Any = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether torch and the processor support packed weights of this precision on this device."""
    has_it = hasattr(torch.ops.mkldnn, "_reorder_linear_weight") and _pointwise is not None
    if device.type != "cpu" or dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available() or not has_it:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """y = x Wᵀ + b with a packed W, for inference only. Identity: the values of `nn.Linear` in the same precision."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features

    @torch.no_grad()
    def pack(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Copy a plain layer's weight [out, in] and bias [out], of any precision."""
        kernels = kernels_for(weight.device, torch.bfloat16)
        blocks = kernels.in_blocks(weight.bfloat16()) if kernels and kernels.product_rows else None
        self.few = None if kernels is None or blocks is None else (kernels, blocks)
        """The kernels and the weights in their layout, for few rows; None if not available."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16().contiguous(), _ROWS)
        self.bias = None if bias is None else bias.bfloat16()

    def clear(self) -> None:
        """Free the weights until the next `pack`."""
        self.few = self.packed = None

    @property
    def weight(self) -> torch.Tensor:
        """The plain weight [out, in], converted back for architectures that read it directly."""
        return self.packed.to_dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activated(x, "none")

    def activated(self, x: torch.Tensor, activation: str) -> torch.Tensor:
        """Return activation(x Wᵀ + b), by oneDNN's name of the activation (`swish`: SiLU), without intermediate rounding."""
        if few := self._for_few_rows(x):
            kernels, blocks = few
            return kernels.product(x, blocks, self.bias, activation, None)
        return _pointwise.default(x, self.packed, self.bias, activation, [], "")

    def then(self, operation: str, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return (x Wᵀ + b) plus or times other, by the operation's name (`add`, `mul`), without intermediate rounding."""
        if few := self._for_few_rows(x):
            kernels, blocks = few
            return kernels.product(x, blocks, self.bias, operation, other)
        return _pointwise.binary(x, other, self.packed, self.bias, operation)

    def _for_few_rows(self, x: torch.Tensor) -> tuple[DecodingKernels, torch.Tensor] | None:
        """Return the kernels and weights for x, if it has few enough rows."""
        fits = self.few and x.numel() <= self.few[0].product_rows * self.in_features and x.is_contiguous()
        return self.few if fits else None


def pack_linears(model: nn.Module) -> dict[str, PackedLinear]:
    """Replace every plain linear layer of the model by an empty packed one; returns these by name, for `fill`."""
    plain = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    packed = {name: PackedLinear(module.in_features, module.out_features) for name, module in plain.items()}
    for name, module in packed.items():
        model.set_submodule(name, module)
    return packed


def fill(packed: Mapping[str, PackedLinear], weights: Mapping[str, torch.Tensor]) -> None:
    """Pack the weights, named as in the model's state dict."""
    for name, module in packed.items():
        module.pack(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
