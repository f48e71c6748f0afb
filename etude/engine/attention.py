"""Attention on a CPU over prompts that several rows share.

A forward pass takes the tokens of all rows as one flat sequence and delegates keys, values and attention to a function, `Attend`. During
the prefill this is causal attention within each prompt. During decoding every row has two segments: its prompt, shared by the samples of a
group, and its generated tokens. The prompt is one product for all queries of a group, the generated segment another, and their softmaxes
are joined by their normalisers (Juravsky et al. 2024, Hydragen, arXiv 2402.05099, section 3.1):

    o = s · o_own + (1 - s) · o_prompt,  s = sigmoid(a - b),  a, b: log Σ exp of the scores at the own and at the prompt's positions

Identity: attention over the concatenation of both, up to rounding.

Shapes: N tokens, B rows, P prompts, G places for the rows of a prompt, H query heads, K key/value heads, R = H / K, T positions, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from etude.kernels.decoding import DecodingKernels
from etude.kernels.tables import LayerTable

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""Number of the layer, queries [N, H, D], new keys and values [N, K, D], scale of the scores → attention output [N, H, D]."""


@runtime_checkable
class AllLayersAttend(Protocol):
    """The `Attend` of a decoding step whose layers one kernel can run, if the forward pass has a table of its layers."""

    kernels: DecodingKernels

    def run(self, layers: LayerTable, x_NE: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor) -> None:
        """Run all layers; their output replaces the input `x_NE`."""


flash: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
"""The CPU kernel of `scaled_dot_product_attention`, called directly because it also returns the normaliser."""


def is_available(device: torch.device) -> bool:
    """Tell whether `flash` runs on a device."""
    return device.type == "cpu" and flash is not None


def attend_causal(
    queries_NHD: torch.Tensor, keys_NKD: torch.Tensor, values_NKD: torch.Tensor, lengths: Sequence[int], scale: float
) -> torch.Tensor:
    """Return causal attention [N, H, D] within each of the concatenated sequences of these lengths."""
    parts = zip(*(states.split(list(lengths)) for states in (queries_NHD, keys_NKD, values_NKD)), strict=True)
    read = []
    for queries, keys, values in parts:
        found, _ = flash(*(states.transpose(0, 1)[None] for states in (queries, keys, values)), is_causal=True, scale=scale)
        read.append(found[0].transpose(0, 1))
    return torch.cat(read)


def attend_own(
    queries_BHD: torch.Tensor, keys_BKTD: torch.Tensor, values_BKTD: torch.Tensor, bias_B11T: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend from one token of each row to the row's own keys; returns the output [B, H, D] and the normaliser log Σ exp of the scores
    [B, H].

    Heads that share keys are computed as positions of one head: one product instead of one for each head.
    """
    grouped_BKRD = queries_BHD.unflatten(1, (keys_BKTD.shape[1], -1))
    read, normaliser = flash(grouped_BKRD, keys_BKTD, values_BKTD, attn_mask=bias_B11T, scale=scale)
    return read.flatten(1, 2), normaliser.flatten(1, 2)


@dataclass(frozen=True)
class RowLayout:
    """The rows of a batch, arranged by prompt: G places for each of P prompts."""

    prompts: int
    row_Q: torch.Tensor | None
    """The row in each of the P·G places; unused places repeat row 0. None: the rows fill all places in order."""
    place_B: torch.Tensor

    @staticmethod
    def of(prompt_B: torch.Tensor, prompts: int) -> "RowLayout":
        """Arrange rows. `prompt_B`: the prompt that each row continues, ascending."""
        rows = torch.arange(len(prompt_B))
        count_P = torch.bincount(prompt_B, minlength=prompts)
        width = int(count_P.max())
        place_B = prompt_B * width + rows - (count_P.cumsum(0) - count_P)[prompt_B]
        if prompts * width == len(rows):
            return RowLayout(prompts, None, place_B)
        row_Q = torch.zeros(prompts * width, dtype=torch.long)
        row_Q[place_B] = rows
        return RowLayout(prompts, row_Q, place_B)


def attend_prompts(
    queries_BHD: torch.Tensor,
    keys_PKTD: torch.Tensor,
    values_PKTD: torch.Tensor,
    bias_P11T: torch.Tensor | None,
    places: RowLayout,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend like `attend_own`, to the prompt of each row, whose keys and values its rows share."""
    _, heads, width = queries_BHD.shape
    prompts, kv_heads = places.prompts, keys_PKTD.shape[1]
    placed = queries_BHD if places.row_Q is None else queries_BHD[places.row_Q]
    grouped = placed.view(prompts, -1, kv_heads, heads // kv_heads, width).transpose(1, 2).reshape(prompts, kv_heads, -1, width)
    read, normaliser = flash(grouped, keys_PKTD, values_PKTD, attn_mask=bias_P11T, scale=scale)

    def by_row(found_PKQX: torch.Tensor) -> torch.Tensor:
        by_place = found_PKQX.unflatten(2, (-1, heads // kv_heads)).transpose(1, 2).reshape(-1, heads, found_PKQX.shape[-1])
        return by_place if places.row_Q is None else by_place[places.place_B]

    return by_row(read), by_row(normaliser[..., None])[..., 0]


def merge_attention(own: tuple[torch.Tensor, torch.Tensor], prompt: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return attention [B, H, D] over both segments, from (output, normaliser) over each."""
    share_BH = torch.sigmoid(own[1] - prompt[1]).to(own[0].dtype)
    return torch.lerp(prompt[0].to(own[0].dtype), own[0], share_BH[..., None])
