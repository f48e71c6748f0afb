"""Log-probs and entropy of completion tokens under a model, with the LM head run on completion positions only."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from etude.learn.batches import MicroBatch


@dataclass
class Outputs:
    """What the model says of N completion tokens."""

    logprobs_N: torch.Tensor
    """Natural log-probs at temperature 1, with gradient."""
    entropy_N: torch.Tensor
    """Entropy in nats of the distribution each token was chosen from, without gradient."""


def token_logprobs(model: Any, batch: MicroBatch, dtype: torch.dtype = torch.float32) -> Outputs:
    """One forward pass; `dtype` bfloat16 computes the matrix products under autocast, float32 masters untouched."""
    device = batch.tokens_BT.device
    with (
        head_on(model, batch.sources_N),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
    ):
        logits_NV = model(
            input_ids=batch.tokens_BT,
            attention_mask=batch.attention_mask(),
            position_ids=batch.positions_BT,
            use_cache=False,
        ).logits
    logprobs_NV = logits_NV.float().log_softmax(-1)
    with torch.no_grad():
        entropy_N = -(logprobs_NV.exp() * logprobs_NV).sum(-1)
    return Outputs(logprobs_NV.gather(-1, batch.targets_N[:, None]).squeeze(-1), entropy_N)


@contextmanager
def head_on(model: Any, positions_N: torch.Tensor) -> Iterator[None]:
    """Within the context the model's LM head sees only the flat (row·T + position) hidden states `positions_N`: logits are [N, V].

    A hook on the head rather than a call of the decoder, so that what an architecture does after its head (soft caps, scales) still holds.
    """

    def choose(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0].flatten(0, -2)[positions_N], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        hook.remove()
