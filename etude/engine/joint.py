"""Joint decoding: joins the next-token distributions of several inputs, and appends the sampled token to all of them.

The decoding loop treats a group of inputs as one row (`etude.engine.decoding`). With w_j the inputs' weights, which sum to 1:

    product      log p(v) = sum_j w_j log p(v | input_j) - log Z      (the joint argmax of integrative decoding, Cheng et al. 2025, arXiv
                                                                       2410.01556, which sums: the same token where it is the likeliest)
    mean         log p(v) = log sum_j w_j p(v | input_j)

Both equal a single input's own distribution if all inputs are the same: the identity, at every temperature.

Shapes: B inputs of G groups, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from etude.engine.protocols import Context, Join
from etude.kernels.decoding import kernels_for


def product(logits_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the weighted mean of log-probs up to a constant; logits suffice, since log Z_j is the same for all tokens."""
    kernels = kernels_for(logits_BV.device, logits_BV.dtype)
    if kernels:
        return kernels.weighted_sums(logits_BV, group_B, weight_B, groups)
    return _weighted_sums(logits_BV.float(), group_B, weight_B, groups)


def mean(logits_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the log of the weighted mean of probabilities."""
    return _weighted_sums(logits_BV.float().softmax(-1), group_B, weight_B, groups).log()


def _weighted_sums(values_BV: torch.Tensor, group_B: torch.Tensor, weight_B: torch.Tensor, groups: int) -> torch.Tensor:
    joined_GV = torch.zeros(groups, values_BV.shape[-1], device=values_BV.device)
    return joined_GV.index_add_(0, group_B, values_BV * weight_B[:, None])


JOINS: dict[str, Join] = {"product": product, "mean": mean}


class JointContext:
    """A context whose rows are groups of another context's rows."""

    def __init__(self, context: Context, group_B: torch.Tensor, weight_B: torch.Tensor, join: Join) -> None:
        """Join rows by group. `group_B`: the group of each row, counted from 0; a group's weights sum to 1."""
        self.context, self.group_B, self.weight_B, self.join = context, group_B, weight_B, join
        self.number_G = list(range(int(group_B.max()) + 1))
        """The original number of each group, since finished groups are removed."""
        self.computed_tokens = 0
        self._choices: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        """For each step: the group of every row (by original number), the row's own likeliest token, and its weight."""

    @staticmethod
    def of(
        context: Context, row_N: np.ndarray, weights: Sequence[Sequence[float]], join: Join, room_tokens: int, device: torch.device
    ) -> tuple["JointContext", torch.Tensor]:
        """Group a context's rows. `row_N`: the row of each input, one group after another; `weights`: theirs, by group. Returns the joint
        context, and the original row of `context` for each of its rows: an input that is in a group twice is one row, one that is in two
        groups is two rows.
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
        """Keep only these groups, ascending. Raises ValueError for a repeated group."""
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
        """Join the rows' logits [B, V]; returns the groups' [G, V]. Also records each row's likeliest token, for `agreement`."""
        number_B = torch.tensor(self.number_G, device=self.group_B.device)[self.group_B]
        kernels = kernels_for(logits_BV.device, logits_BV.dtype)
        # torch's maximum of bfloat16 has a third of the speed
        best_B = kernels.best(logits_BV) if kernels else logits_BV.float().max(-1).indices
        self._choices.append((number_B, best_B, self.weight_B))
        return self.join(logits_BV, self.group_B, self.weight_B, len(self))

    def agreement(self, number: int, tokens: Sequence[int]) -> tuple[float, ...]:
        """Return, for each token of a group (by original number), the weighted share of rows whose own likeliest token it was."""
        pairs = zip(tokens, self._choices, strict=False)  # other groups may have more steps
        return tuple(float(weight_B[(number_B == number) & (best_B == token)].sum()) for token, (number_B, best_B, weight_B) in pairs)
