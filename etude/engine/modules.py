"""The forward pass of any transformers model by its own modules, with attention delegated to an `Attend`.

Transformers' `AttentionInterface` passes the queries, keys and values of every layer, under the name `NAME`. Architectures whose attention
needs more than these raise NotImplementedError. Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface

from etude.engine.attention import Attend
from etude.engine.protocols import KeepHidden
from etude.models.heads import head_on_positions

NAME = "etude_attend"
"""Transformers' name for attention that is delegated to an `Attend`."""


class ModulesForward:
    """Logits by transformers' own modules, with an `Attend` in place of their cache and attention."""

    head = None
    """None: an architecture may change logits after its head, so hidden states are not sufficient."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def sync_weights(self) -> None:
        """Do nothing: no copies of weights are held."""

    def offload_weights(self) -> None:
        """Do nothing: no copies of weights are held."""

    def logits(
        self,
        tokens_N: torch.Tensor,
        positions_N: torch.Tensor,
        attend: Attend,
        chosen_M: torch.Tensor,
        keep_hidden: KeepHidden | None = None,
    ) -> torch.Tensor:
        """Return the logits [M, V] after the chosen tokens; no hidden states are kept."""
        no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)  # four dimensions, so that transformers passes it on unchanged
        with _leaving_attention(self.model), head_on_positions(self.model, chosen_M):
            found = self.model(
                input_ids=tokens_N[None], attention_mask=no_mask, position_ids=positions_N[None], use_cache=False, attend=attend
            )
        return found.logits


@contextmanager
def _leaving_attention(model: Any) -> Iterator[None]:
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _left_to_attend(
    module: Any,
    query_1HND: torch.Tensor,
    key_1KND: torch.Tensor,
    value_1KND: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    attend: Attend | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    unknown = [name for name in ("softcap", "s_aux", "position_bias", "sliding_window") if others.get(name) is not None]
    if attend is None or unknown:
        raise NotImplementedError(f"its attention needs {', '.join(unknown) or 'more than is handed on to it'}")
    scale = query_1HND.shape[-1] ** -0.5 if scaling is None else scaling
    queries_NHD, keys_NKD, values_NKD = (states[0].transpose(0, 1) for states in (query_1HND, key_1KND, value_1KND))
    read_NHD = attend(module.layer_idx, queries_NHD, keys_NKD, values_NKD, scale)
    return read_NHD[None], None


AttentionInterface.register(NAME, _left_to_attend)
