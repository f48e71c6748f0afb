"""Forward and backward pass of updates for Llama-shaped models on a CPU, with few operations.

transformers' modules spend more time on norms, gates, positions, masks and copies than on matrix products. They attend to whole rows,
although a packed row is mostly masked out, and store every intermediate for the backward pass. Here a layer is two functions with a
backward pass of their own, and between their products are the kernels of `etude.kernels.update`. Stored for the backward pass are a half
layer's input, the queries, keys and values (Qwen3's also without their norm), the attention output, and the two inputs of the gate; norms
and gates are recomputed. The head's logits are computed for some tokens at a time, forward and again backward, so that the full tensor
never exists.

Attention's backward pass is FlashAttention's (Dao et al. 2022, arXiv 2205.14135, appendix B.2), over trees of tokens. The numbers are those
of transformers' modules under autocast (`etude.learn.logprobs`): products in the update's precision; residuals, norms, softmax and sums in
float32.

Shapes: as in `etude.kernels.update`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from etude.kernels.compiled import WIDTH
from etude.kernels.update import Trees, UpdateKernels, kernels_for
from etude.learn.batches import MicroBatch, can_share_prefixes
from etude.models.load import LLAMA_SHAPED

_HEAD_ROWS = 1024
"""Most tokens whose logits exist at a time; oneDNN reorders the head's weights for each such piece."""
_EVEN = 128
"""Numbers of tokens are rounded up to a multiple of it: in half precision oneDNN compiles a program for every new number, at a cost in
time and memory.
"""


class FusedPass:
    """Computes log-probs and hidden states with a model's own weights."""

    def __init__(self, model: Any, kernels: UpdateKernels) -> None:
        self._model, self._kernels = model, kernels

    @staticmethod
    def of(model: Any, dtype: torch.dtype) -> "FusedPass | None":
        """Return the pass for an unmodified model of a known architecture and size; else None."""
        if type(model).__name__ not in LLAMA_SHAPED or not _is_untouched(model):
            return None
        config, weight, own = model.config, model.get_input_embeddings().weight, model.model.layers[0].self_attn
        sizes = config.hidden_size, config.intermediate_size, own.head_dim
        is_biased = own.o_proj.bias is not None or getattr(config, "mlp_bias", False)
        is_plain = config.hidden_act == "silu" and not is_biased and can_share_prefixes(config)
        if weight.dtype != torch.float32 or not is_plain or any(size % WIDTH for size in sizes):
            return None
        kernels = kernels_for(weight.device, dtype)
        return FusedPass(model, kernels) if kernels else None

    def logprobs(self, batch: MicroBatch, *, entropy_slopes: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log-probs with gradient and entropies, [M], of the distinct triples of a position, a token and a temperature; entropies
        have a gradient with `entropy_slopes`.
        """
        decoder = self._model.model
        vocabulary, most = len(self._model.lm_head.weight), int(batch.targets_M.max())
        if most >= vocabulary:
            raise ValueError(f"a completion holds the token {most}, but the model has {vocabulary}: resize its embeddings to the tokenizer")
        x_ME = self._residuals(batch, batch.sources_M)
        spare = len(x_ME) - len(batch.targets_M)
        head = self._model.lm_head.weight, F.pad(batch.targets_M, (0, spare)), F.pad(batch.temperatures_M, (0, spare), value=1.0)
        found = _Head.apply(x_ME, decoder.norm.weight, *head, self._kernels, decoder.norm.variance_epsilon, entropy_slopes)
        return found[0][: len(batch.sources_M)], found[1][: len(batch.sources_M)]

    def hidden_states(self, batch: MicroBatch, positions_K: torch.Tensor) -> torch.Tensor:
        """Return the head's input at these flat positions, [K, E], with gradient."""
        return self._model.model.norm(self._residuals(batch, positions_K)[: len(positions_K)])

    def _residuals(self, batch: MicroBatch, positions_K: torch.Tensor) -> torch.Tensor:
        """Return the last layer's output at these positions, before the last norm, and some padding rows."""
        decoder = self._model.model
        is_token_BT = batch.ends_BT > 0
        tokens_N, positions_N = batch.tokens_BT[is_token_BT], batch.positions_BT[is_token_BT]
        trees, spare = _trees(batch, is_token_BT), self._spare(len(tokens_N))
        x_NE = decoder.embed_tokens(F.pad(tokens_N, (0, spare)))
        cos_ND, sin_ND = (part[0] for part in decoder.rotary_emb(x_NE, position_ids=F.pad(positions_N, (0, spare))[None]))
        shared = _Shared(self._kernels, trees.with_strangers(spare), cos_ND.contiguous(), sin_ND.contiguous())
        for layer in decoder.layers:
            own, mlp, norm = layer.self_attn, layer.mlp, layer.input_layernorm
            inputs = own.q_proj, own.k_proj, own.v_proj
            weights = (*(part.weight for part in inputs), own.o_proj.weight, *(part.bias for part in inputs))
            head_norms = (own.q_norm.weight, own.k_norm.weight) if hasattr(own, "q_norm") else (None, None)  # Qwen3
            sizes = self._model.config.num_attention_heads, own.head_dim, own.scaling, norm.variance_epsilon
            x_NE = _Attention.apply(x_NE, norm.weight, *weights, *head_norms, shared, sizes)
            norm, weights = layer.post_attention_layernorm, tuple(part.weight for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
            x_NE = _GatedMLP.apply(x_NE, norm.weight, *weights, self._kernels, norm.variance_epsilon)
        place_BT = is_token_BT.flatten().cumsum(0) - 1
        return x_NE.index_select(0, F.pad(place_BT[positions_K], (0, self._spare(len(positions_K)))))

    def _spare(self, number: int) -> int:
        return -number % _EVEN if self._kernels.dtype == torch.bfloat16 else 0


def _is_untouched(model: Any) -> bool:
    """Return whether the model's class is transformers', its attention and MLPs have plain parts, and it has no hooks."""
    parts = [module for layer in model.model.layers for module in (*layer.self_attn.children(), *layer.mlp.children())]
    is_plain = all(type(module) is nn.Linear or type(module).__name__.endswith(("RMSNorm", "Activation", "SiLU")) for module in parts)
    is_known = type(model).__module__.startswith("transformers.models.")
    return is_known and is_plain and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@dataclass(frozen=True)
class _Shared:
    """Data that all layers share."""

    kernels: UpdateKernels
    trees: Trees
    cos_ND: torch.Tensor
    sin_ND: torch.Tensor


def _trees(batch: MicroBatch, is_token_BT: torch.Tensor) -> Trees:
    lengths_B = is_token_BT.sum(1)
    starts = torch.cat([lengths_B.new_zeros(1), lengths_B.cumsum(0)])
    return Trees(starts, (batch.ends_BT + starts[:-1, None])[is_token_BT])


class _Attention(torch.autograd.Function):
    """x + Attention(Norm(x))."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NE: torch.Tensor,
        norm: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        query_bias: torch.Tensor | None,
        key_bias: torch.Tensor | None,
        value_bias: torch.Tensor | None,
        query_norm: torch.Tensor | None,
        key_norm: torch.Tensor | None,
        shared: _Shared,
        sizes: tuple[int, int, float, float],
    ) -> torch.Tensor:
        kernels, (heads, width, scale, epsilon) = shared.kernels, sizes
        normed_NE, inverse_N = kernels.norm(x_NE, norm, epsilon)
        states_NSD = (normed_NE @ _joined((query, key, value), kernels.dtype).t()).unflatten(1, (-1, width))
        if query_bias is not None:
            states_NSD += _joined((query_bias, key_bias, value_bias), kernels.dtype).view(-1, width)
        turned = (states_NSD.shape[1] + heads) // 2
        plain = None
        if query_norm is not None and key_norm is not None:
            plain = states_NSD[:, :turned].clone()
            for part, norm_D, its in _by_kind(plain, heads, query_norm, key_norm, states_NSD):
                its.copy_(kernels.norm(part, norm_D, epsilon)[0].view_as(its))
        kernels.rotate(states_NSD, turned, shared.cos_ND, shared.sin_ND)
        read_NHD, normaliser_NH = kernels.attend(states_NSD, shared.trees, heads, scale)
        kept = inverse_N, states_NSD, read_NHD, normaliser_NH, query_norm, key_norm, plain
        ctx.save_for_backward(x_NE, norm, query, key, value, output, *kept)
        ctx.shared, ctx.sizes, ctx.turned, ctx.has_bias = shared, sizes, turned, query_bias is not None
        return x_NE + read_NHD.flatten(1) @ output.to(kernels.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NE, norm, query, key, value, output, inverse_N, states_NSD, read_NHD, normaliser_NH, *heads_normed = ctx.saved_tensors
        shared, (heads, _, scale, epsilon) = ctx.shared, ctx.sizes
        kernels, slope_NE = shared.kernels, gradients[0].contiguous()
        slope = slope_NE.to(kernels.dtype)
        read_slope_NHD = (slope @ output.to(kernels.dtype)).view_as(read_NHD)
        output_slope = slope.t() @ read_NHD.flatten(1)
        states_slope_NSD = kernels.attend_backward(states_NSD, shared.trees, scale, read_NHD, normaliser_NH, read_slope_NHD)
        kernels.rotate(states_slope_NSD, ctx.turned, shared.cos_ND, shared.sin_ND, back=True)
        head_norm_slopes = []
        query_norm, key_norm, plain = heads_normed
        if plain is not None:
            for part, norm_D, its in _by_kind(plain, heads, query_norm, key_norm, states_slope_NSD):
                slopes, norm_slope = kernels.norm_backward(its.reshape(part.shape), part, kernels.norm(part, norm_D, epsilon)[1], norm_D)
                its.copy_(slopes.view_as(its))
                head_norm_slopes.append(norm_slope)
        flat = states_slope_NSD.flatten(1)
        normed_NE, _ = kernels.norm(x_NE, norm, epsilon)
        rows = [len(query), len(key), len(value)]
        parts = (flat.t() @ normed_NE).split(rows)
        biases = flat.sum(0, dtype=torch.float32).split(rows) if ctx.has_bias else (None, None, None)
        normed_slope_NE = flat @ _joined((query, key, value), kernels.dtype)
        x_slope_NE, norm_slope = kernels.norm_backward(normed_slope_NE, x_NE, inverse_N, norm, slope_NE)
        return x_slope_NE, norm_slope, *parts, output_slope, *biases, *(head_norm_slopes or (None, None)), None, None


class _GatedMLP(torch.autograd.Function):
    """x + Down(SiLU(Gate(Norm(x))) · Up(Norm(x)))."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NE: torch.Tensor,
        norm: torch.Tensor,
        gate: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
        kernels: UpdateKernels,
        epsilon: float,
    ) -> torch.Tensor:
        normed_NE, inverse_N = kernels.norm(x_NE, norm, epsilon)
        both_N2F = normed_NE @ _joined((gate, up), kernels.dtype).t()
        ctx.save_for_backward(x_NE, norm, gate, up, down, inverse_N, both_N2F)
        ctx.kernels, ctx.epsilon = kernels, epsilon
        return x_NE + kernels.gated(both_N2F) @ down.to(kernels.dtype).t()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_NE, norm, gate, up, down, inverse_N, both_N2F = ctx.saved_tensors
        kernels, slope_NE = ctx.kernels, gradients[0].contiguous()
        slope = slope_NE.to(kernels.dtype)
        gated_NF, both_slope_N2F = kernels.gated_backward(both_N2F, slope @ down.to(kernels.dtype))
        down_slope = slope.t() @ gated_NF
        normed_NE, _ = kernels.norm(x_NE, norm, ctx.epsilon)
        parts = (both_slope_N2F.t() @ normed_NE).chunk(2)
        normed_slope_NE = both_slope_N2F @ _joined((gate, up), kernels.dtype)
        x_slope_NE, norm_slope = kernels.norm_backward(normed_slope_NE, x_NE, inverse_N, norm, slope_NE)
        return x_slope_NE, norm_slope, *parts, down_slope, None, None


class _Head(torch.autograd.Function):
    """Log-probs of the targets and entropies of softmax(Head(Norm(x)) / temperature), each row at its own temperature."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ME: torch.Tensor,
        norm: torch.Tensor,
        head: torch.Tensor,
        targets_M: torch.Tensor,
        temperatures_M: torch.Tensor,
        kernels: UpdateKernels,
        epsilon: float,
        entropy_slopes: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        normed_ME, inverse_M = kernels.norm(x_ME, norm, epsilon)
        weight = head.to(kernels.dtype)
        found = []
        for normed, targets, temperatures in _pieces(normed_ME, targets_M, temperatures_M):
            logits = normed @ weight.t()
            found.append(kernels.chosen(logits, targets, temperatures))
        ctx.logits = logits if len(found) == 1 and any(ctx.needs_input_grad) else None  # else recomputed in pieces
        logprobs_M, entropy_M, normaliser_M = (torch.cat(part) for part in zip(*found, strict=True))
        kept = (entropy_M,) if entropy_slopes else ()
        ctx.save_for_backward(x_ME, norm, head, targets_M, temperatures_M, inverse_M, normed_ME, normaliser_M, *kept)
        ctx.kernels = kernels
        if not entropy_slopes:
            ctx.mark_non_differentiable(entropy_M)
        return logprobs_M, entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_ME, norm, head, targets_M, temperatures_M, inverse_M, normed_ME, normaliser_M, *entropy = ctx.saved_tensors
        kernels, weight = ctx.kernels, head.to(ctx.kernels.dtype)
        normed_slope_ME, head_slope = torch.empty_like(normed_ME), None
        entropy = [*entropy, gradients[1].contiguous()] if entropy else []
        own_slopes = gradients[0].contiguous(), *entropy
        pieces = _pieces(normed_ME, normed_slope_ME, targets_M, temperatures_M, normaliser_M, *own_slopes)
        kept, ctx.logits = ctx.logits, None  # overwritten by the slopes
        for normed, normed_slope, targets, temperatures, normalisers, slopes, *own in pieces:
            logits = normed @ weight.t() if kept is None else kept
            kernels.chosen_backward(logits, targets, temperatures, normalisers, slopes, tuple(own) or None)
            torch.mm(logits, weight, out=normed_slope)
            slope = logits.t() @ normed
            head_slope = slope if head_slope is None else head_slope.float().add_(slope)
        x_slope_ME, norm_slope = kernels.norm_backward(normed_slope_ME, x_ME, inverse_M, norm)
        return x_slope_ME, norm_slope, head_slope, None, None, None, None, None


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield the tensors cut alike, into as few pieces as possible, of about equal length."""
    length, number = len(tensors[0]), -(-len(tensors[0]) // _HEAD_ROWS)
    rows = -(-length // number // _EVEN) * _EVEN  # rounded up to a multiple
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _by_kind(
    plain_NTD: torch.Tensor, heads: int, query_norm: torch.Tensor, key_norm: torch.Tensor, states_NSD: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield queries and keys as rows of float32, with the weight of their norm and their part of the states."""
    kinds = plain_NTD.split((heads, plain_NTD.shape[1] - heads), dim=1)
    places = states_NSD[:, :heads], states_NSD[:, heads : plain_NTD.shape[1]]
    for part, norm_D, its in zip(kinds, (query_norm, key_norm), places, strict=True):
        yield part.float().reshape(-1, part.shape[-1]), norm_D, its


def _joined(weights: Sequence[torch.Tensor | None], dtype: torch.dtype) -> torch.Tensor:
    """Return several weights of one input concatenated, in the precision of products."""
    present = [weight for weight in weights if weight is not None]
    joined = torch.empty(sum(map(len, present)), *present[0].shape[1:], dtype=dtype)
    for part, weight in zip(joined.split([len(weight) for weight in present]), present, strict=True):
        part.copy_(weight)
    return joined
