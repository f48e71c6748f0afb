"""The LM head on chosen positions only: in the update on completion tokens, in the engine on the last position of each row.

And what it reads there, for a head of another kind.
"""

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


@contextmanager
def states_before_head(model: Any, positions_N: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """Within the context a forward pass puts into the list what the LM head reads at the flat positions `positions_N`, [N, E].

    The head itself runs on one position of each row, so that it costs next to nothing.
    """
    found: list[torch.Tensor] = []

    def take(_: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        found.append(args[0].flatten(0, -2)[positions_N])
        return (args[0][:, :1], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(take)
    try:
        yield found
    finally:
        hook.remove()
