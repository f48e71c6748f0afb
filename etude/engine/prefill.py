"""The prefill: computes prompts concatenated into a flat sequence, without padding. Shapes: as in `etude.engine.attention`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from etude.engine.attention import Attend
from etude.engine.protocols import Forward

_PREFILL_TOKENS = 2048
"""Number of prompt tokens computed together, so that activations between layers stay in the processor's cache."""


@dataclass(frozen=True)
class PackedPrompts:
    """Prompts that are computed together, concatenated without padding."""

    lengths: list[int]
    prompt_N: torch.Tensor
    """Number of each token's prompt, counted over all parts."""
    position_N: torch.Tensor


def compute_prompts(
    forward: Forward,
    prompts: Sequence[Sequence[int]],
    attend_of: Callable[[PackedPrompts], Attend],
    first_P: Sequence[int] | None = None,
) -> torch.Tensor:
    """Compute the prompts in parts; returns the logits [P, V] after them. `attend_of` returns an `Attend` for a part, which also stores
    keys and values. `first_P`: the positions of the prompts' first tokens; 0 by default.
    """
    logits = []
    first_P = first_P or [0] * len(prompts)
    for first, end in _parts([len(prompt) for prompt in prompts]):
        lengths = [len(prompt) for prompt in prompts[first:end]]
        prompt_N = torch.repeat_interleave(torch.arange(first, end), torch.tensor(lengths))
        positions = [torch.arange(start, start + length) for start, length in zip(first_P[first:end], lengths, strict=True)]
        part = PackedPrompts(lengths, prompt_N, torch.cat(positions))
        tokens_N = torch.tensor([token for prompt in prompts[first:end] for token in prompt])
        logits.append(forward.logits(tokens_N, part.position_N, attend_of(part), torch.tensor(lengths).cumsum(0) - 1))
    return torch.cat(logits)


def _parts(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Split sequences into parts of about equal length, of up to `_PREFILL_TOKENS` tokens or one sequence; yields first and end of each."""
    total = sum(lengths)
    most = -(-total // -(-total // _PREFILL_TOKENS)) + max(lengths) // 2
    cuts, tokens = [0], 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > most:
            cuts.append(index)
            tokens = 0
        tokens += length
    return pairwise([*cuts, len(lengths)])
