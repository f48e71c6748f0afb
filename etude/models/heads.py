"""Runs the LM head only on chosen positions, or collects its input there.

The update only needs logits of completion tokens, the engine those of the last position of each row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def head_on_positions(model: Any, positions_N: torch.Tensor) -> Iterator[None]:
    """Restrict the LM head, within the context, to the hidden states at the flat positions (row·T + position) `positions_N`: logits are [N,
    V].

    This is a hook on the head instead of a call of the decoder, so operations of an architecture after its head (soft caps, scales) still
    apply.
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
    """Collect, within the context, the LM head's input at the flat positions `positions_N` in the list, [N, E] for each forward pass.

    The head itself runs on one position of each row, so it costs almost nothing.
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
