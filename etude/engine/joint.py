"""Several inputs, one answer: the next-token distributions of a group's inputs are joined, and what is drawn is appended to them all.

To what decodes it, a group is one row (`etude.engine.decoding` knows nothing of it). With w_j the inputs' weights, which sum to 1:

    product      log p(v) = sum_j w_j log p(v | input_j) - log Z      (the joint argmax of integrative decoding, Cheng et al. 2025, arXiv
                                                                       2410.01556, which sums: the same token where it is the likeliest)
    mean         log p(v) = log sum_j w_j p(v | input_j)

Both are a single input's own distribution where all inputs are the same: the identity, at every temperature.

Shapes: B inputs of G groups, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from etude.engine.completion import Completion
from etude.engine.context import Context
from etude.kernels.decoding import kernels_for

Join = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Logits [B, V], the group of each input, its weight, the number of groups → logits [G, V]."""


def product(logits_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    """The weighted mean of log-probs: logits do, since log Z_j is the same for all tokens."""
    kernels = kernels_for(logits_BV.device, logits_BV.dtype)
    if kernels:
        return kernels.weighted_sums(logits_BV, group_B, weight_B, groups)
    return _weighted_sums(logits_BV.float(), group_B, weight_B, groups)


def mean(logits_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    """The log of the weighted mean of probabilities."""
    return _weighted_sums(logits_BV.float().softmax(-1), group_B, weight_B, groups).log()


def _weighted_sums(values_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    joined_GV = torch.zeros(groups, values_BV.shape[-1], device=values_BV.device)
    return joined_GV.index_add_(0, group_B, values_BV * weight_B[:, None])


JOINS: dict[str, Join] = {"product": product, "mean": mean}


@dataclass(frozen=True)
class Joint:
    """An answer to several inputs."""

    completion: Completion
    """Its log-probs are those of the joined distribution."""
    agreement: tuple[float, ...]
    """For each token the share, by weight, of inputs whose own likeliest token it was."""


class JointContext:
    """A context whose rows are groups of another's."""

    def __init__(self, context: Context, group_B: torch.Tensor, weight_B: torch.Tensor, join: Join) -> None:
        """`group_B`: the group of each row, from 0 on, any number of rows each; their weights sum to 1."""
        self.context, self.group_B, self.weight_B, self.join = context, group_B, weight_B, join
        self.number_G = list(range(int(group_B.max()) + 1))
        """What the groups were called at first: those that are over leave."""
        self.computed_tokens = 0
        self._choices: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """For each token what every row would have chosen, by its group's first name, and with its weight."""

    @staticmethod
    def of(
        context: Context, row_N: np.ndarray, weights: Sequence[Sequence[float]], join: Join, room_tokens: int, device: torch.device
    ) -> tuple["JointContext", torch.Tensor]:
        """Groups of a context's rows: `row_N` is the row of each input, one group's after another's, `weights` are theirs by group. Also
        returns which row each of its own was: an input that stands in a group twice is one row, one that stands in two groups is two.
        """
        group_N = np.repeat(np.arange(len(weights)), [len(own) for own in weights])
        distinct, place_N = np.unique(np.stack([row_N, group_N], axis=1), axis=0, return_inverse=True)
        rows_B, group_B = torch.from_numpy(distinct).to(device).unbind(1)
        if len(rows_B) > len(context):
            context.keep(rows_B, room_tokens)
        summed_B = np.bincount(place_N.reshape(-1), weights=[weight for own in weights for weight in own])
        return JointContext(context, group_B, torch.from_numpy(summed_B).to(device, torch.float32), join), rows_B

    @property
    def copies(self) -> bool:
        return self.context.copies

    def __len__(self) -> int:
        return len(self.number_G)

    def keep(self, rows_B: torch.Tensor, room_tokens: int) -> None:
        """Go on with these groups, ascending, each once."""
        if len(rows_B.unique()) < len(rows_B):
            raise ValueError("a group has one answer: name it twice for two")
        place_G = torch.full((len(self),), -1, device=rows_B.device).index_copy_(0, rows_B, torch.arange(len(rows_B), device=rows_B.device))
        kept_B = (place_G[self.group_B] >= 0).nonzero().flatten()
        self.context.keep(kept_B, room_tokens)
        self.group_B, self.weight_B = place_G[self.group_B[kept_B]], self.weight_B[kept_B]
        self.number_G = [self.number_G[group] for group in rows_B.tolist()]

    def next_logits(self, tokens_B: torch.Tensor) -> torch.Tensor:
        self.computed_tokens += len(self.group_B)
        return self.joined(self.context.next_logits(tokens_B[self.group_B]))

    def joined(self, logits_BV: torch.Tensor) -> torch.Tensor:
        """Of the groups, by those of the rows."""
        number_B = torch.tensor(self.number_G, device=self.group_B.device)[self.group_B]
        kernels = kernels_for(logits_BV.device, logits_BV.dtype)
        # torch finds the largest of bfloat16 at a third of the speed
        best_B = kernels.best(logits_BV) if kernels else logits_BV.float().max(-1).indices
        self._choices.append((number_B, best_B, self.weight_B))
        return self.join(logits_BV, self.group_B, self.weight_B, len(self))

    def agreement(self, number: int, tokens: Sequence[int]) -> tuple[float, ...]:
        """Of a group, by its first name, with what was drawn for it."""
        pairs = zip(tokens, self._choices, strict=False)  # others go on when it is over
        return tuple(float(weight_B[(number_B == number) & (best_B == token)].sum()) for token, (number_B, best_B, weight_B) in pairs)
