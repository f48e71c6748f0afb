"""What the rows of a decoding batch have behind them: keys and values, and where the next token stands.

`CopiedContext` is transformers' cache with a copy of its prompt for every row: for any architecture and device. On a CPU, for architectures
whose layers all attend to all positions, two others keep a prompt once for all of its rows: `etude.engine.blocks` by kernels,
`etude.engine.shared` by torch's operations. All give the same logits up to rounding.

Shapes: as in `etude.engine.attention`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import Cache

from etude.engine.attention import Attend
from etude.engine.cache import attends, cache_argument, preallocated_cache, select_rows
from etude.models.heads import head_on_positions

if TYPE_CHECKING:
    from etude.engine.forward import Shared

_PREFILL_TOKENS = 2048
"""Prompt tokens that are computed together, so that what lies between two layers stays in the processor's cache."""


class Context(Protocol):
    """Rows that decode in step."""

    @property
    def copies(self) -> bool:
        """Whether `keep` copies what the rows have behind them, so that they had better leave some at a time."""

    def __len__(self) -> int:
        """How many."""

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Go on with these rows, ascending, as often as they are named, with room for so many more tokens."""

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Append a token to every row; returns the logits [B, V] of what follows it."""


KeepRead = Callable[[torch.Tensor], None]
"""Is given what the LM head reads of some tokens, [M, E]."""

KeepStates = Callable[[int, torch.Tensor], None]
"""Is given the number of a layer, 0 for the embeddings, and what it gives of some tokens, [M, E]."""


class Forward(Protocol):
    """A model whose attention is left to an `Attend`."""

    model: Any

    @property
    def head(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Logits [M, V] by what the head reads, [M, E]; None where that is not all there is to it, and nothing is kept."""

    def logits(
        self, tokens_N: torch.Tensor, positions_N: torch.Tensor, attend: Attend, chosen_M: torch.Tensor, keep_read: KeepRead | None = None
    ) -> torch.Tensor:
        """Of what follows the chosen tokens, [M, V]; `keep_read` is given what the head reads of them."""

    def refresh(self) -> None:
        """The model's weights have changed."""

    def put_away(self) -> None:
        """They are about to: what was made from them may go until then."""


class Opened(Protocol):
    """Prompts that were computed."""

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        """Rows that continue these prompts, by number, ascending; `samples` completions in all, each of up to `room_tokens` tokens."""


class View(Protocol):
    """Another way in which a model sees a context, or says what follows it."""

    @property
    def name(self) -> str:
        """As it stands on what was decoded so."""

    def prefill(
        self, model: Any, prompts: Sequence[Sequence[int]], pad: int, shared: "Shared | None" = None
    ) -> tuple[Opened, torch.Tensor]:
        """The prompts, and the logits [P, V] of what follows them. `shared`: the way in which the engine samples, if it is faster."""

    def held_tokens(self, prompt_tokens: int, new_tokens: int) -> int:
        """Positions that a row takes behind its prompt."""


# ---------------------------------------------------------------------- a copy of the prompt for every row


@dataclass
class CopiedContext:
    """Every row has keys and values of its own."""

    model: Any
    cache: Cache
    mask_BT: torch.Tensor
    """0 at padding, on the left."""
    copies: ClassVar[bool] = True

    @staticmethod
    def prefill(model: Any, prompts: Sequence[Sequence[int]], pad: int) -> tuple["CopiedContext", torch.Tensor]:
        """The prompts as rows, and the logits [B, V] of what follows them."""
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
        """Tokens of each row."""
        return self.mask_BT.sum(-1)

    def begin(self, rows_B: torch.Tensor, room_tokens: int, *, samples: int) -> Context:
        return CopiedContext(self.model, select_rows(self.cache, rows_B, room_tokens), self.mask_BT[rows_B])

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        self.cache, self.mask_BT = select_rows(self.cache, rows_B, room_tokens), self.mask_BT[rows_B]

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.mask_BT = torch.nn.functional.pad(self.mask_BT, (0, 1), value=1)
        return self._logits(tokens_B[:, None])

    def _logits(self, tokens_BT: torch.Tensor) -> torch.Tensor:
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


# ---------------------------------------------------------------------- prompts without padding


@dataclass(frozen=True)
class Part:
    """Prompts that are computed together, one behind another without padding."""

    lengths: list[int]
    prompt_N: torch.Tensor
    """Number of the prompt that a token belongs to, counted over all parts."""
    position_N: torch.Tensor


def compute_prompts(
    forward: Forward, prompts: Sequence[Sequence[int]], attend_of: Callable[[Part], Attend], first_P: Sequence[int] | None = None
) -> torch.Tensor:
    """The logits [P, V] of what follows the prompts, with an `Attend` for each part of them that also keeps keys and values. `first_P`:
    the positions of their first tokens, 0 unless given.
    """
    logits = []
    first_P = first_P or [0] * len(prompts)
    for first, end in _parts([len(prompt) for prompt in prompts]):
        lengths = [len(prompt) for prompt in prompts[first:end]]
        prompt_N = torch.repeat_interleave(torch.arange(first, end), torch.tensor(lengths))
        positions = [torch.arange(start, start + length) for start, length in zip(first_P[first:end], lengths, strict=True)]
        part = Part(lengths, prompt_N, torch.cat(positions))
        tokens_N = torch.tensor([token for prompt in prompts[first:end] for token in prompt])
        logits.append(forward.logits(tokens_N, part.position_N, attend_of(part), torch.tensor(lengths).cumsum(0) - 1))
    return torch.cat(logits)


def _parts(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where to cut sequences, so that parts have up to `_PREFILL_TOKENS` tokens, all about as many, or one sequence."""
    total = sum(lengths)
    most = -(-total // -(-total // _PREFILL_TOKENS)) + max(lengths) // 2
    cuts, tokens = [0], 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > most:
            cuts.append(index)
            tokens = 0
        tokens += length
    return pairwise([*cuts, len(lengths)])
