"""The forward pass of Llama-shaped models in the few operations that it needs.

A decoding step of a small model is a thousand small operations; transformers' modules spend more time on norms, activations, masks and
bookkeeping than on products. Here the activation, the gate and both residual sums are part of the products before them (oneDNN's
post-operations), queries, keys and values come from one product, and the tokens of all rows are one flat stretch without padding. The
numbers are those of transformers' modules up to rounding, in bfloat16 with fewer roundings.

For the architectures of `ARCHITECTURES`; the engine compares it with transformers' own forward pass before it uses it.

Shapes: N tokens, H query heads, K key/value heads, D head width, E hidden width.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from etude.engine.attention import Attend
from etude.engine.packed import PackedLinear

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")


class FusedForward:
    """Logits by a model's own weights."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.refresh()

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the architecture is one of those, and nothing was added to its layers."""
        config = model.config
        return type(model).__name__ in ARCHITECTURES and config.hidden_act == "silu" and not getattr(config, "pretraining_tp", 1) > 1

    def refresh(self) -> None:
        """Join what lies in several layers of the model; to be called when its weights have changed."""
        self._projections = [_Joined([a.q_proj, a.k_proj, a.v_proj]) for a in (layer.self_attn for layer in self.model.model.layers)]

    def logits(self, tokens_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend, chosen_M: torch.Tensor) -> torch.Tensor:
        """Of what follows the chosen tokens, [M, V]."""
        decoder = self.model.model
        x_NE = decoder.embed_tokens(tokens_N)
        cos, sin = (part.transpose(0, 1) for part in decoder.rotary_emb(x_NE, position_ids=positions_N[None]))  # [N, 1, D]
        first, second = sin.chunk(2, dim=-1)
        sin = torch.cat([-first, second], dim=-1)  # the sign that the rotated half would have
        for number, (layer, project) in enumerate(zip(decoder.layers, self._projections, strict=True)):
            attention, mlp = layer.self_attn, layer.mlp
            states = project(_normed(x_NE, layer.input_layernorm)).view(len(x_NE), self.heads + 2 * self.kv_heads, -1)
            rotated, values_NKD = self._rotated(attention, states, cos, sin), states[:, self.heads + self.kv_heads :]
            read_NHD = attend(number, rotated[:, : self.heads], rotated[:, self.heads :], values_NKD, attention.scaling)
            x_NE = _sum_with(attention.o_proj, read_NHD.reshape(len(x_NE), -1), x_NE)
            x_NE = _sum_with(mlp.down_proj, _gated(mlp.gate_proj, mlp.up_proj, _normed(x_NE, layer.post_attention_layernorm)), x_NE)
        return self.model.lm_head(_normed(x_NE[chosen_M], decoder.norm))

    def _rotated(self, attention: Any, states: torch.Tensor, cos_N1D: torch.Tensor, sin_N1D: torch.Tensor) -> torch.Tensor:
        """Queries and keys [N, H + K, D] with their positions."""
        states = states[:, : self.heads + self.kv_heads]
        if hasattr(attention, "q_norm"):  # Qwen3
            queries, keys = _normed(states[:, : self.heads], attention.q_norm), _normed(states[:, self.heads :], attention.k_norm)
            states = torch.cat([queries, keys], dim=1)
        return torch.addcmul(states * cos_N1D, states.roll(states.shape[-1] // 2, dims=-1), sin_N1D)


class _Joined:
    """Linear layers of one input as one product."""

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers
        self._product: Callable[[torch.Tensor], torch.Tensor] | None = None
        if all(isinstance(layer, PackedLinear) for layer in layers):
            joined = PackedLinear(layers[0].in_features, sum(layer.out_features for layer in layers))
            bias = None if layers[0].bias is None else torch.cat([layer.bias for layer in layers])
            joined.pack(torch.cat([layer.weight for layer in layers]), bias)
            self._product = joined

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._product(x) if self._product else torch.cat([layer(x) for layer in self._layers], dim=-1)


def _normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def _sum_with(layer: Any, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    return layer.then("add", x, residual) if isinstance(layer, PackedLinear) else layer(x) + residual


def _gated(gate: Any, up: Any, x: torch.Tensor) -> torch.Tensor:
    if isinstance(gate, PackedLinear):
        return up.then("mul", x, gate.activated(x, "swish"))
    return F.silu(gate(x)) * up(x)
