"""The forward pass of Llama-shaped models in fused operations.

A decoding step of a small model is a thousand small operations; transformers' modules spend more time on norms, activations, masks and
bookkeeping than on products. Here the activation, the gate and both residual sums are fused into the products before them (oneDNN's
post-operations, or in float32 a kernel's). Queries, keys and values come from one product, and the tokens of all rows are one flat
sequence. The results are those of transformers' modules up to rounding, in bfloat16 with fewer roundings.

Float32 weights are kept a second time in the layout of the kernel, if the machine's memory is large enough: products of 8 to 64 rows are
1.3 to 1.7 times as fast, and a row's result does not depend on the other rows, bit for bit. In half precision one kernel runs all layers of
a decoding step of few rows, with the same bits.

It supports the architectures of `LLAMA_SHAPED`. The engine compares it with transformers' own forward pass, in the master's precision,
before using it.

Shapes: N tokens, H query heads, K key/value heads, D head width, E hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from etude.device.processor import memory_bytes
from etude.engine.attention import AllLayersAttend, Attend
from etude.engine.packed import PackedLinear
from etude.engine.protocols import KeepHidden, KeepLayerOutput
from etude.kernels.decoding import DecodingKernels, kernels_for
from etude.kernels.tables import LayerTable
from etude.models.load import LLAMA_SHAPED

_EVEN, _SIZES = 32, 8
"""Packed products are padded to a multiple of `_EVEN` tokens, and to one of `_SIZES` sizes between a power of two and the next: oneDNN
compiles a program for every new size, in 5 to 10 ms.
"""


class FusedForward:
    """A `Forward` from a model's own weights."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config, parameter = model.config, next(model.parameters())
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._kernels = kernels_for(parameter.device, parameter.dtype)
        self._turns_TD: tuple[torch.Tensor, torch.Tensor] = (torch.empty(0), torch.empty(0))
        self.sync_weights()

    @staticmethod
    def fits(model: Any) -> bool:
        """Tell whether the architecture is supported."""
        config = model.config
        return type(model).__name__ in LLAMA_SHAPED and config.hidden_act == "silu" and not getattr(config, "pretraining_tp", 1) > 1

    def sync_weights(self) -> None:
        """Lay out the model's weights for fused products; call it after they have changed."""
        self.offload_weights()
        has_room = _has_room_for(self.model)
        self._layers = [_Layer.of(layer, has_room) for layer in self.model.model.layers]
        self._head = _Product(self.model.lm_head, has_room=has_room)
        self._few_rows = _by_one_kernel(self._layers, self.heads, self.kv_heads)

    def offload_weights(self) -> None:
        """Free the layouts until the next `sync_weights`."""
        self._layers, self._few_rows = [], None

    def logits(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_hidden: KeepHidden | None = None,
        keep_layer_output: KeepLayerOutput | None = None,
    ) -> torch.Tensor:
        """Return the logits [M, V] after the chosen tokens. `keep_hidden` takes their last hidden states, `keep_layer_output` their hidden
        states after every layer.
        """
        read_ME = self._read(tokens_N, positions_N, attend, chosen_M, keep_layer_output)
        if keep_hidden:
            keep_hidden(read_ME)
        return self.head(read_ME)

    def head(self, read_ME: torch.Tensor) -> torch.Tensor:
        """Apply the LM head to hidden states; returns logits [M, V]."""
        return self._head(read_ME)

    def _read(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_layer_output: KeepLayerOutput | None,
    ) -> torch.Tensor:
        """Return the last hidden states [M, E] of the chosen tokens, which the head reads."""
        assert self._layers, "weights were offloaded"
        decoder, heads, both, rows = self.model.model, self.heads, self.heads + self.kv_heads, len(tokens_N)
        # a decoding step of few rows: run all layers by one kernel
        if self._few_rows and not keep_layer_output and isinstance(attend, AllLayersAttend) and rows <= attend.kernels.product_rows:
            x_NE, cos_ND, sin_ND = self._embedded(tokens_N, positions_N)
            attend.run(self._few_rows, x_NE, cos_ND, sin_ND)
            return self._normed(x_NE, decoder.norm)
        # otherwise run layer by layer, padded to a size that oneDNN has compiled
        spare = _spare(rows) if rows > _EVEN and self._layers[0].project.is_packed else 0
        x_NE, cos_ND, sin_ND = self._embedded(F.pad(tokens_N, (0, spare)), F.pad(positions_N, (0, spare)))
        shape = (len(x_NE), both + self.kv_heads, cos_ND.shape[1])
        for number, layer in enumerate(self._layers):
            if keep_layer_output:
                keep_layer_output(number, x_NE[chosen_M])
            # attention
            states = layer.project(self._normed(x_NE, layer.input_norm)).view(shape)
            turned = self._rotated(layer, states, cos_ND, sin_ND)
            read_NHD = attend(number, turned[:rows, :heads], turned[:rows, heads:both], states[:rows, both:], layer.scale)
            if number == len(self._layers) - 1 and len(chosen_M) < rows:  # no later layer attends to the other tokens
                read_NHD, x_NE = read_NHD[chosen_M], x_NE[chosen_M]
            elif spare:
                read_NHD = F.pad(read_NHD, (0, 0, 0, 0, 0, spare))
            # residual sums and the MLP, fused into the products
            x_NE = layer.output.plus(read_NHD.view(len(x_NE), -1), x_NE)
            x_NE = layer.down.plus(layer.up.times(self._normed(x_NE, layer.post_norm), layer.gate), x_NE)
        x_ME = x_NE if len(x_NE) == len(chosen_M) else x_NE[chosen_M]
        if keep_layer_output:
            keep_layer_output(len(self._layers), x_ME)
        return self._normed(x_ME, decoder.norm)

    def _embedded(self, tokens_N: torch.Tensor, positions_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return embeddings [N, E], and cosines and sines [N, D] of the positions."""
        x_NE = self.model.model.embed_tokens(tokens_N)
        cos_TD, sin_TD = self._turns_up_to(int(positions_N.max()), x_NE)
        return x_NE, cos_TD[positions_N], sin_TD[positions_N]

    def _turns_up_to(self, position: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosines and sines [T, D] for at least all positions up to this one, computed for twice as many at a time."""
        if position >= len(self._turns_TD[0]):
            positions_1T = torch.arange(2 * position + 1, device=like.device)[None]
            cos_1TD, sin_1TD = self.model.model.rotary_emb(like, position_ids=positions_1T)
            self._turns_TD = cos_1TD[0], sin_1TD[0]
        return self._turns_TD

    def _normed(self, x: torch.Tensor, norm: Any) -> torch.Tensor:
        """Apply an RMSNorm."""
        if self._kernels:
            return self._kernels.rms_norm(x, norm.weight, norm.variance_epsilon)
        return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)

    def _rotated(self, layer: "_Layer", states_NSD: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> torch.Tensor:
        """Apply rotary embeddings (and norms, if any) to queries and keys [N, H + K, D]."""
        if self._kernels:
            weights = (layer.query_norm.weight, layer.key_norm.weight) if layer.query_norm else None
            epsilon = layer.query_norm.variance_epsilon if layer.query_norm else 0.0
            self._kernels.rotate(states_NSD, self.heads, self.kv_heads, cos_ND, sin_ND, weights, epsilon)
            return states_NSD
        states_NSD = states_NSD[:, : self.heads + self.kv_heads]
        if layer.query_norm:
            queries, keys = states_NSD.split((self.heads, self.kv_heads), dim=1)
            states_NSD = torch.cat([self._normed(queries, layer.query_norm), self._normed(keys, layer.key_norm)], dim=1)
        first, second = sin_ND[:, None].chunk(2, dim=-1)
        signed = torch.cat([-first, second], dim=-1)  # with the sign that the rotated half would have
        return torch.addcmul(states_NSD * cos_ND[:, None], states_NSD.roll(states_NSD.shape[-1] // 2, dims=-1), signed)


def _spare(rows: int) -> int:
    """Return the number of padding rows for a number of rows."""
    return -rows % max(_EVEN, 2 ** (rows.bit_length() - 1) // _SIZES)


@dataclass(slots=True)
class _Layer:
    """The modules and products of a layer, held here since looking them up in the model at every step takes longer than some operations."""

    input_norm: Any
    project: "_Product"
    """To queries, keys and values."""
    query_norm: Any
    """None: queries and keys are not normed."""
    key_norm: Any
    scale: float
    output: "_Product"
    post_norm: Any
    gate: "_Product"
    up: "_Product"
    down: "_Product"

    @staticmethod
    def of(layer: Any, has_room: bool) -> "_Layer":
        attention, mlp = layer.self_attn, layer.mlp
        return _Layer(
            layer.input_layernorm,
            _Product(attention.q_proj, attention.k_proj, attention.v_proj, has_room=has_room),
            getattr(attention, "q_norm", None),  # Qwen3
            getattr(attention, "k_norm", None),
            attention.scaling,
            _Product(attention.o_proj, has_room=has_room),
            layer.post_attention_layernorm,
            *(_Product(part, has_room=has_room) for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)),
        )

    def by_name(self) -> dict[str, torch.Tensor | None]:
        """Return weights and biases by name, the products' in the layout for few rows; None for missing ones."""
        norms = {name: getattr(self, name) for name in ("input_norm", "query_norm", "key_norm", "post_norm")}
        found = {name: None if norm is None else norm.weight for name, norm in norms.items()}
        for name in ("project", "output", "gate", "up", "down"):
            found[name], found[f"{name}_bias"] = getattr(self, name).for_few_rows()
        return found


def _by_one_kernel(layers: Sequence[_Layer], heads: int, kv_heads: int) -> LayerTable | None:
    """Return the layers' table for the kernel that runs all of them, or None if it can't."""
    first, each = layers[0], [layer.by_name() for layer in layers]
    parts = [layer[name] for layer in each for name in ("project", "output", "gate", "up", "down")]
    if any(part is None for part in parts) or any(layer.scale != first.scale for layer in layers):
        return None
    output = each[0]["output"]
    assert output is not None
    sizes = {"heads": heads, "kv_heads": kv_heads, "width": output.shape[1] // heads}
    return LayerTable(each, **sizes, epsilon=first.input_norm.variance_epsilon, scale=first.scale)


class _Product:
    """Linear layers of one input, computed as one product fused with the operation after it."""

    def __init__(self, *layers: Any, has_room: bool) -> None:
        """Lay out weights. `has_room`: whether float32 weights may be kept a second time."""
        self._layers = layers
        self._packed = _packed(layers) if all(isinstance(layer, PackedLinear) for layer in layers) else None
        self._panels = _in_panels(layers) if has_room else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self._packed:
            return self._packed.activated(x, "none")
        if self._panels:
            return self._panels(x, "none", None)
        return torch.cat([layer(x) for layer in self._layers], dim=-1) if len(self._layers) > 1 else self._layers[0](x)

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    def for_few_rows(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the weights in the kernel's layout, if any, and the bias."""
        few = self._packed.few if self._packed else None
        return (few[1], self._packed.bias) if few and self._packed else (None, None)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Return the product plus a residual."""
        if self._packed:
            return self._packed.then("add", x, residual)
        return self._panels(x, "add", residual) if self._panels else self(x) + residual

    def times(self, x: torch.Tensor, gate: "_Product") -> torch.Tensor:
        """Return the product times SiLU of the gate's product."""
        if self._packed and gate._packed:
            return self._packed.then("mul", x, gate._packed.activated(x, "swish"))
        if self._panels and gate._panels:
            return self._panels(x, "mul", gate._panels(x, "swish", None))
        return F.silu(gate(x)) * self(x)


class _Panels:
    """Plain float32 layers of one input, computed as one product in the kernel's layout."""

    def __init__(self, kernels: DecodingKernels, weights: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._kernels, self._weights, self._bias = kernels, weights, bias

    def __call__(self, x: torch.Tensor, then: str, other: torch.Tensor | None) -> torch.Tensor:
        return self._kernels.product(x.contiguous(), self._weights, self._bias, then, other if other is None else other.contiguous())


def _has_room_for(model: Any) -> bool:
    """Tell whether the machine's memory holds the weights three times: plain, in the kernel's layout, and for everything else. Currently
    free memory must not decide, since the two layouts round differently. True if the system does not report its memory."""
    total = memory_bytes()
    return total is None or 3 * sum(parameter.nbytes for parameter in model.parameters()) <= total


def _in_panels(layers: Sequence[Any]) -> _Panels | None:
    """Lay out layers for the float32 kernel; returns None if it can't compute them."""
    if any(type(layer) is not torch.nn.Linear for layer in layers) or len({layer.bias is None for layer in layers}) > 1:
        return None
    kernels = kernels_for(layers[0].weight.device, layers[0].weight.dtype)
    joined = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
    weights = kernels.in_panels(joined) if kernels else None
    if kernels is None or weights is None:
        return None
    return _Panels(kernels, weights, None if layers[0].bias is None else torch.cat([layer.bias.detach() for layer in layers]))


def _packed(layers: Sequence[PackedLinear]) -> PackedLinear:
    """Join packed layers into one."""
    if len(layers) == 1:
        return layers[0]
    joined = PackedLinear(layers[0].in_features, sum(layer.out_features for layer in layers))
    bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers if layer.bias is not None])
    joined.pack(torch.cat([layer.weight for layer in layers]), bias)
    return joined
