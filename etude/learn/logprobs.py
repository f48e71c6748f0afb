"""Log-probs and entropy of completion tokens under a model, with the LM head run only on predicting positions; and the head's input.

Shapes: N completion tokens, M distinct triples of a predicting position, a token and a temperature, K positions, V vocabulary, E hidden
size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from etude.learn.batches import MicroBatch, can_share_prefixes, pack
from etude.learn.example import Example
from etude.learn.fused import FusedPass
from etude.models.heads import head_on_positions, states_before_head

_ROWS = 16
"""Rows of logits converted to float32 together, so that they stay in the processor's cache."""


@dataclass
class Outputs:
    """The model's output for N completion tokens."""

    logprobs_N: torch.Tensor
    """Natural log-probs of each token at its example's temperature, with gradient."""
    entropy_N: torch.Tensor
    """Entropy in nats of the distribution of each token, with gradient if requested."""


def token_logprobs(model: Any, batch: MicroBatch, dtype: torch.dtype = torch.float32, *, entropy_slopes: bool = False) -> Outputs:
    """Run one forward pass; `dtype` bfloat16 computes the matrix products under autocast, with float32 master weights.

    Log-probs are those of softmax(logits / temperature), with the batch's temperatures. `entropy_slopes` gives entropies a gradient, at
    some cost in the backward pass.
    """
    fused = FusedPass.of(model, dtype)
    if fused:
        logprobs_M, entropy_M = fused.logprobs(batch, entropy_slopes=entropy_slopes)
        return Outputs(logprobs_M[batch.triple_N], entropy_M[batch.triple_N])
    with head_on_positions(model, batch.sources_M):
        logits_MV = _read(model, batch, dtype).logits
    logprobs_M, entropy_M = _ChosenLogProbs.apply(logits_MV, batch.targets_M, batch.temperatures_M, entropy_slopes)
    return Outputs(logprobs_M[batch.triple_N], entropy_M[batch.triple_N])


def hidden_states(model: Any, batch: MicroBatch, positions_K: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the LM head's input at flat (row·T + position) positions of the batch, [K, E] in float32, with gradient; `dtype` as above."""
    fused = FusedPass.of(model, dtype)
    if fused:
        return fused.hidden_states(batch, positions_K)
    with states_before_head(model, positions_K) as found:
        _read(model, batch, dtype)
    return found[0].float()


def _read(model: Any, batch: MicroBatch, dtype: torch.dtype) -> Any:
    with torch.autocast(batch.tokens_BT.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return model(
            input_ids=batch.tokens_BT,
            attention_mask=batch.attention_mask(),
            position_ids=batch.positions_BT,
            use_cache=False,
        )


@torch.no_grad()
def completion_logprobs(
    model: Any,
    examples: Sequence[Example],
    dtype: torch.dtype = torch.float32,
    *,
    batch_tokens: int = 2048,
    temperature: float | Sequence[float] = 1.0,
    shares_prefixes: bool | None = None,
) -> list[tuple[float, ...]]:
    """Return log-probs of the examples' completion tokens, computed in `batch_tokens` positions at a time, at one temperature or one per
    example; `shares_prefixes` None decides by the architecture.
    """
    temperatures = [temperature] * len(examples) if isinstance(temperature, int | float) else temperature
    shares_prefixes = can_share_prefixes(model.config) if shares_prefixes is None else shares_prefixes
    found: list[list[float]] = [[] for _ in examples]
    model.eval()
    device = next(model.parameters()).device
    for batch in pack(examples, batch_tokens=batch_tokens, shares_prefixes=shares_prefixes, temperatures=temperatures):
        outputs = token_logprobs(model, batch.to(device), dtype)
        for example, value in zip(batch.example_N.tolist(), outputs.logprobs_N.tolist(), strict=True):
            found[example].append(value)
    return [tuple(values) for values in found]


class _ChosenLogProbs(torch.autograd.Function):
    """logits [N, V], targets [N], temperatures [N] → log softmax of logits / temperature at the targets and its entropy, both float32.

    The same numbers as `logits.float().log_softmax(-1).gather(...)`, whose float32 copies of a large vocabulary (three of N·V) cost more
    than the head itself on a CPU; here a copy has a few rows, forward and backward. With p the softmax and H its entropy, the slopes are
    (1[v = target] - p_v) / temperature of the log-prob, and -p_v (log p_v + H) / temperature of the entropy, if it has a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, logits_NV: torch.Tensor, targets_N: torch.Tensor, temperatures_N: torch.Tensor, entropy_slopes: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [_logprobs_and_entropy(*each) for each in _slices(logits_NV, targets_N, temperatures_N)]
        logprobs_N, entropy_N, normaliser_N = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(logits_NV, targets_N, temperatures_N, normaliser_N, *([entropy_N] if entropy_slopes else []))
        if not entropy_slopes:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        logits_NV, targets_N, temperatures_N, normaliser_N, *entropy = ctx.saved_tensors
        result_NV = torch.empty_like(logits_NV)
        entropy = [*entropy, gradients[1]] if entropy else []
        for result, logits, target, temperature, normaliser, gradient, *own in _slices(
            result_NV, logits_NV, targets_N, temperatures_N, normaliser_N, gradients[0], *entropy
        ):
            logprobs = _scaled(logits, temperature).sub_(normaliser[:, None])
            temperature = temperature.to(gradient.dtype)
            gradient = gradient / temperature
            factor = -gradient[:, None]
            if own:
                factor = factor - (own[1] / temperature)[:, None] * (logprobs.clamp(min=-88) + own[0][:, None])
            slope = logprobs.exp_().mul_(factor)
            result.copy_(slope.scatter_add_(1, target[:, None], gradient[:, None]))
        return result_NV, None, None, None


def _logprobs_and_entropy(
    logits: torch.Tensor, targets: torch.Tensor, temperatures: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = _scaled(logits, temperatures)
    top = logits.amax(-1, keepdim=True)
    weights = (logits - top).exp_()
    total = weights.sum(-1)
    normaliser = top[:, 0] + total.log()
    chosen = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
    return chosen, normaliser - weights.mul_(logits).sum(-1) / total, normaliser


def _scaled(logits: torch.Tensor, temperatures: torch.Tensor) -> torch.Tensor:
    """Return a copy of logits / temperature in float32 (float64 stays)."""
    logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32, copy=True)
    return logits.div_(temperatures.to(logits.dtype)[:, None])


def _slices(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    return zip(*(tensor.split(_ROWS) for tensor in tensors), strict=True)
