"""The LM head on chosen positions only: in the update on completion tokens, in the engine on the last position of each row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


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
