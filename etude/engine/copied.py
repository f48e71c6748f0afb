"""Prompts whose keys and values are copied for every row, in transformers' own cache, for any architecture and device.

By contrast, `etude.engine.blocks` and `etude.engine.shared` hold a prompt once for all of its rows, on a CPU, for architectures whose
layers all attend to all positions. All three give the same logits up to rounding. Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache

from etude.engine.cache import attends, cache_argument, preallocated_cache, select_rows
from etude.engine.protocols import Context
from etude.models.heads import head_on_positions


@dataclass
class CopiedContext:
    """Rows with keys and values of their own."""

    model: Any
    cache: Cache
    mask_BT: torch.Tensor
    """0 at the left padding."""
    copies: ClassVar[bool] = True

    @staticmethod
    def prefill(model: Any, prompts: Sequence[Sequence[int]], pad: int) -> tuple["CopiedContext", torch.Tensor]:
        """Compute the prompts as rows; returns them, and the logits [B, V] after them."""
        device = next(model.parameters()).device
        rows = [torch.tensor(prompt, device=device) for prompt in prompts]
        tokens_BT = pad_sequence(rows, batch_first=True, padding_value=pad, padding_side="left")
        mask_BT = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        context = CopiedContext(model, preallocated_cache(model.config), mask_BT)
        return context, context._logits(tokens_BT)

    def __len__(self) -> int:
        return len(self.mask_BT)

    @property
    def length_B(self) -> torch.Tensor:
        """The number of tokens of each row."""
        return self.mask_BT.sum(-1)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return CopiedContext(self.model, select_rows(self.cache, rows_B, room_tokens), self.mask_BT[rows_B])

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        self.cache, self.mask_BT = select_rows(self.cache, rows_B, room_tokens), self.mask_BT[rows_B]

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, 1), value=1)
        return self._logits(tokens_B[:, None])

    def _logits(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, V] after the last of the new tokens."""
        rows, width = tokens_BT.shape
        positions_BT = (self.mask_BT.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        last_B = torch.arange(1, rows + 1, device=tokens_BT.device) * width - 1
        mask_BT = self.mask_BT if attends(self.cache) else self.mask_BT[:, -width:]
        with head_on_positions(self.model, last_B):  # `logits_to_keep=1` leaves a strided view, for which torch copies the head once a row
            return self.model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                use_cache=True,
                **{cache_argument(self.model): self.cache},
            ).logits
