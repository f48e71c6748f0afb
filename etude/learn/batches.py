"""Examples → rows for the model: the prompt of a group once, its completions behind it.

A packed row is [prompt, completion 1, completion 2, ...]. Every completion attends to the prompt and to itself, and its positions go on
from the prompt's, so its log-probs are those of the plain row [prompt, completion]; a group of G completions costs P + G·C instead of
G·(P + C) tokens. Models whose layers need a plain causal row (sliding windows, state-space layers) get plain rows: same numbers, more
tokens.

Shapes: B rows, T row length, N completion tokens of a micro-batch, flat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig

from etude.learn.example import Example

_PADDING_SEGMENT = -1


@dataclass
class MicroBatch:
    """Rows, and where their completion tokens are."""

    tokens_BT: torch.Tensor
    positions_BT: torch.Tensor
    segments_BT: torch.Tensor
    """0 for prompt tokens, 1, 2, ... for the completions of a row, -1 for padding."""
    is_packed: bool
    sources_N: torch.Tensor
    """Flat index (row·T + position) of the position that predicts each completion token."""
    targets_N: torch.Tensor
    """Ids of the completion tokens."""
    example_N: torch.Tensor
    """Which example (place in the list that was packed) each completion token belongs to."""

    def attention_mask(self) -> torch.Tensor:
        """Boolean [B, 1, T, T] (True: may attend) for packed rows, [B, T] of 0/1 for plain ones."""
        if not self.is_packed:
            return (self.segments_BT >= 0).long()
        query_BT1, key_B1T = self.segments_BT[:, :, None], self.segments_BT[:, None, :]
        is_earlier_TT = torch.ones(self.tokens_BT.shape[1], self.tokens_BT.shape[1], dtype=torch.bool, device=query_BT1.device).tril()
        allowed_BTT = is_earlier_TT & ((key_B1T == 0) | (key_B1T == query_BT1))
        return allowed_BTT[:, None]

    def to(self, device: torch.device) -> "MicroBatch":
        return MicroBatch(
            tokens_BT=self.tokens_BT.to(device),
            positions_BT=self.positions_BT.to(device),
            segments_BT=self.segments_BT.to(device),
            is_packed=self.is_packed,
            sources_N=self.sources_N.to(device),
            targets_N=self.targets_N.to(device),
            example_N=self.example_N.to(device),
        )


def can_share_prompts(config: PreTrainedConfig) -> bool:
    """Whether every layer is full attention that honours a mask, so that packed rows give the plain rows' numbers."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    windows = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    is_recurrent = any(hasattr(text, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "conv_kernel", "linear_conv_kernel_dim"))
    takes_mask = config._attn_implementation in (None, "sdpa")  # eager attention would add a boolean mask to its scores
    biased = getattr(text, "alibi", False)  # by distance in the row, which packing changes
    return kinds == {"full_attention"} and windows is None and not is_recurrent and not biased and takes_mask


def pack(examples: Sequence[Example], *, batch_tokens: int, shares_prompts: bool, pad: int = 0) -> Iterator[MicroBatch]:
    """Micro-batches of at most `batch_tokens` positions (padding counted; a single longer row stands alone), longest rows first."""
    rows: list[_Row] = []
    by_prompt: dict[tuple[int, ...], _Row] = {}
    for index, example in enumerate(examples):
        row = by_prompt.get(example.prompt) if shares_prompts else None
        if row is None or row.length + len(example.completion) > batch_tokens:
            row = _Row(example.prompt)
            by_prompt[example.prompt] = row
            rows.append(row)
        row.members.append((index, example.completion))
        row.length += len(example.completion)
    rows.sort(key=lambda row: -row.length)
    while rows:
        count = max(1, batch_tokens // rows[0].length)
        yield _micro_batch(rows[:count], shares_prompts, pad)
        rows = rows[count:]


class _Row:
    def __init__(self, prompt: tuple[int, ...]) -> None:
        self.prompt = prompt
        self.members: list[tuple[int, tuple[int, ...]]] = []
        self.length = len(prompt)


def _micro_batch(rows: Sequence[_Row], is_packed: bool, pad: int) -> MicroBatch:
    width = max(row.length for row in rows)
    tokens: list[list[int]] = []
    positions: list[list[int]] = []
    segments: list[list[int]] = []
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, row in enumerate(rows):
        start = number * width
        line, places, marks = list(row.prompt), list(range(len(row.prompt))), [0] * len(row.prompt)
        for segment, (index, completion) in enumerate(row.members, start=1):
            first = start + len(line)
            sources += [start + len(row.prompt) - 1, *range(first, first + len(completion) - 1)]
            targets += completion
            owners += [index] * len(completion)
            line += completion
            places += range(len(row.prompt), len(row.prompt) + len(completion))
            marks += [segment] * len(completion)
        missing = width - len(line)
        tokens.append(line + [pad] * missing)
        positions.append(places + [0] * missing)
        segments.append(marks + [_PADDING_SEGMENT] * missing)
    return MicroBatch(
        tokens_BT=torch.tensor(tokens),
        positions_BT=torch.tensor(positions),
        segments_BT=torch.tensor(segments),
        is_packed=is_packed,
        sources_N=torch.tensor(sources),
        targets_N=torch.tensor(targets),
        example_N=torch.tensor(owners),
    )
