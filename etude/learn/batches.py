"""Pack examples into rows for the model, with shared prefixes computed once.

A packed row holds the tree of its examples: sorted sequences (prompt, then completion), each adding only the tokens after the prefix that
it shares with the previous one. A token attends to its ancestors and has the position of its plain row, so its log-probs equal those of the
plain row [prompt, completion]. A group's prompt is computed once, and so is a prefix that several of its attempts share, and an attempt
that was sampled twice; gradients add up where paths meet. Models whose layers need a plain causal row (sliding windows, state-space layers)
get plain rows: the same numbers with more tokens.

Shapes: B rows, T row length, M distinct triples of a predicting position, a completion token and a temperature, N completion tokens of a
micro-batch, flat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedConfig

from etude.learn.example import Example

_EVEN_TOKENS = 2048
"""Row length at which attention costs as much as all the rest (SmolLM2-135M, 2 cores): longer rows share more, but spend more on masked
attention.
"""


@dataclass
class MicroBatch:
    """Rows, and the positions where their completion tokens are predicted."""

    tokens_BT: torch.Tensor
    positions_BT: torch.Tensor
    ends_BT: torch.Tensor
    """Where the positions that may attend to a token end: from itself up to there (a tree in preorder). 0 for padding."""
    is_packed: bool
    sources_M: torch.Tensor
    """Flat index (row·T + position) of a predicting position."""
    targets_M: torch.Tensor
    """Id of the completion token predicted there."""
    temperatures_M: torch.Tensor
    """Divisors of the logits."""
    triple_N: torch.Tensor
    """Index among the M triples of each completion token."""
    example_N: torch.Tensor
    """Index of the example (in the packed list) of each completion token; an example's tokens are consecutive, in order."""

    def attention_mask(self) -> torch.Tensor:
        """Boolean [B, 1, T, T] (True: may attend) for packed rows, [B, T] of 0/1 for plain ones."""
        if not self.is_packed:
            return (self.ends_BT > 0).long()
        place_T = torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device)
        query_T1, key_1T = place_T[:, None], place_T[None, :]
        is_seen_BTT = (key_1T < query_T1) & (query_T1 < self.ends_BT[:, None, :])
        return (is_seen_BTT | (key_1T == query_T1))[:, None]

    def to(self, device: torch.device) -> "MicroBatch":
        tensors: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **tensors)


def can_share_prefixes(config: PreTrainedConfig) -> bool:
    """Return whether every layer is full attention that honours a mask, so that packed rows give the same numbers as plain rows."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    windows = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    is_recurrent = any(hasattr(text, name) for name in ("ssm_cfg", "state_size", "mamba_d_state", "conv_kernel", "linear_conv_kernel_dim"))
    takes_mask = config._attn_implementation in (None, "sdpa")  # eager attention would add a boolean mask to its scores
    biased = getattr(text, "alibi", False)  # by distance in the row, which packing changes
    return kinds == {"full_attention"} and windows is None and not is_recurrent and not biased and takes_mask


def pack(
    examples: Sequence[Example], *, batch_tokens: int, shares_prefixes: bool, pad: int = 0, temperatures: Sequence[float] | None = None
) -> Iterator[MicroBatch]:
    """Yield micro-batches of at most `batch_tokens` positions (padding counted; a single longer row is one of its own), longest rows first.

    `temperatures` has one per example; None is 1 for all of them.
    """
    temperatures = [1.0] * len(examples) if temperatures is None else temperatures
    rows = _packed_rows(examples, temperatures, batch_tokens) if shares_prefixes else _plain_rows(examples, temperatures)
    rows.sort(key=lambda row: -len(row.tokens))
    while rows:
        count = max(1, batch_tokens // len(rows[0].tokens))
        yield _micro_batch(rows[:count], shares_prefixes, pad)
        rows = rows[count:]


def _plain_rows(examples: Sequence[Example], temperatures: Sequence[float]) -> list["_Row"]:
    return [_Row().add(index, *each) for index, each in enumerate(zip(examples, temperatures, strict=True))]


def _packed_rows(examples: Sequence[Example], temperatures: Sequence[float], batch_tokens: int) -> list["_Row"]:
    """Cut the sorted examples into rows at the lowest cost: mostly between groups."""
    order = sorted(range(len(examples)), key=lambda i: (*examples[i].prompt, *examples[i].completion))
    inputs = [_inputs(examples[i]) for i in order]
    added = [len(own) - _num_shared(before, own) for before, own in zip([(), *inputs], inputs, strict=False)]
    cheapest, starts = [0.0], []  # cost of rows for the first examples, and where the last of those rows starts
    for end in range(1, len(order) + 1):
        options: list[tuple[float, int]] = []
        tail = 0
        for start in range(end - 1, -1, -1):
            length = len(inputs[start]) + tail
            if options and length > batch_tokens:
                break
            options.append((cheapest[start] + length * (1 + length / _EVEN_TOKENS), start))
            tail += added[start]
        cost, start = min(options)
        cheapest.append(cost)
        starts.append(start)
    rows, end = [], len(order)
    while end:
        row, start = _Row(), starts[end - 1]
        for index in order[start:end]:
            row.add(index, examples[index], temperatures[index])
        rows.append(row)
        end = start
    return rows[::-1]


class _Row:
    """A tree of sequences in preorder. A sequence's last token predicts nothing, so it is not in the row."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.ends: list[int] = []
        self.path: list[int] = []
        """Positions of the tokens of the last added sequence."""
        self.triples: dict[tuple[int, int, float], int] = {}
        """Each distinct (predicting position, target, temperature) and its number."""
        self.triple_N: list[int] = []
        self.example_N: list[int] = []

    def add(self, index: int, example: Example, temperature: float) -> "_Row":
        """Add an example, which must not sort before the last one."""
        inputs = _inputs(example)
        shared = _num_shared([self.tokens[place] for place in self.path], inputs)
        del self.path[shared:]
        for position in range(shared, len(inputs)):
            self.path.append(len(self.tokens))
            self.tokens.append(inputs[position])
            self.positions.append(position)
            self.ends.append(0)
        for place in self.path:
            self.ends[place] = len(self.tokens)
        for source, target in zip(self.path[len(example.prompt) - 1 :], example.completion, strict=True):
            self.triple_N.append(self.triples.setdefault((source, target, temperature), len(self.triples)))
            self.example_N.append(index)
        return self


def _num_shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of leading tokens that two sequences share."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))


def _inputs(example: Example) -> tuple[int, ...]:
    return (*example.prompt, *example.completion[:-1])


def _micro_batch(rows: Sequence[_Row], is_packed: bool, pad: int) -> MicroBatch:
    width = max(len(row.tokens) for row in rows)

    def padded(name: str, filler: int) -> torch.Tensor:
        return torch.tensor([getattr(row, name) + [filler] * (width - len(row.tokens)) for row in rows])

    triples = [(number * width + place, *rest) for number, row in enumerate(rows) for place, *rest in row.triples]
    triple_N: list[int] = []
    first = 0
    for row in rows:
        triple_N += [first + triple for triple in row.triple_N]
        first += len(row.triples)
    return MicroBatch(
        tokens_BT=padded("tokens", pad),
        positions_BT=padded("positions", 0),
        ends_BT=padded("ends", 0),
        is_packed=is_packed,
        sources_M=torch.tensor([source for source, _, _ in triples]),
        targets_M=torch.tensor([target for _, target, _ in triples]),
        temperatures_M=torch.tensor([temperature for _, _, temperature in triples], dtype=torch.float64),
        triple_N=torch.tensor(triple_N),
        example_N=torch.tensor([index for row in rows for index in row.example_N]),
    )
