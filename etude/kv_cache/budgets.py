"""Split a budget over layers and heads; heads keep `budget` tokens on average.

Layers:
    uniform   the same in every layer
    pyramid   decreasing from the first to the last layer by equal steps (PyramidKV, Cai et al. 2024, arXiv 2406.02069; by its code).
              Departure: every layer always keeps the first tokens and the last ones, in the paper only the last ones; so the last layer
              has slightly more and the first slightly less.
    all       the most important tokens of any head of any layer (KVzip, Kim et al. 2025, NeurIPS, arXiv 2505.23416)
Heads: the same in each, or `by_head` the most important tokens of any head of a layer (Ada-KV, Feng et al. 2024, arXiv 2407.11550). If
heads may differ, each keeps at least a share of the even budget.

Shapes: H heads, T slots, L layers.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch

from etude.errors import UserError, at_least

Spread = Literal["uniform", "pyramid", "all"]


def check_budget(budget_tokens: int | None, keep_ratio: float | None) -> None:
    """Raise UserError for an invalid budget, or for two budgets."""
    if budget_tokens is not None and keep_ratio is not None:
        raise UserError(
            f"budget_tokens is {budget_tokens} and keep_ratio {keep_ratio}, but a budget is a number of tokens or a share of them: leave "
            "one of them out"
        )
    if budget_tokens is not None:
        at_least("budget_tokens", budget_tokens, 1)
    if keep_ratio is not None and not 0 < keep_ratio <= 1:
        raise UserError(f"keep_ratio must be above 0 and at most 1 (everything), got {keep_ratio}")


def is_everything(budget_tokens: int | None, keep_ratio: float | None) -> bool:
    """Tell whether everything is kept: without a budget, or with share 1."""
    return budget_tokens is None and keep_ratio in (None, 1.0)


def tokens_of(budget_tokens: int | None, keep_ratio: float | None, seen: int) -> int:
    """Return the budget in tokens for `seen` tokens; a share gives at least 1."""
    return budget_tokens if budget_tokens is not None else max(1, round((keep_ratio or 1) * seen))


def of_layers(how: Spread, budget: int, *, layers: int, seen: int, recent: int, slope: float) -> list[int]:
    """Return the budget of every layer, L x budget in total. Each layer always keeps `recent` tokens, and none has more than `seen`.

    Pyramid: the last layer keeps recent + (budget - recent) / slope; the first is as far above the mean as the last is below it; slope 1 is
    uniform. If this is more than `seen`, the first layer keeps all tokens.
    """
    if how != "pyramid" or budget >= seen or layers == 1:
        return [budget] * layers
    recent = min(recent, budget)
    free = budget - recent
    least = free / slope
    most = 2 * free - least
    if most > seen - recent:
        most = seen - recent
        least = 2 * free - most
    shares = [recent + most - (most - least) * layer / (layers - 1) for layer in range(layers)]
    return _whole(shares)


def _whole(shares: Sequence[float]) -> list[int]:
    """Round shares so that every partial sum is within 0.5 of the exact one."""
    ends, total = [0], 0.0
    for share in shares:
        total += share
        ends.append(round(total))
    return [end - before for before, end in pairwise(ends)]


def chosen(importance_HT: torch.Tensor, budget: int, *, by_head: bool, least_share: float) -> list[torch.Tensor]:
    """Return the slots that each head keeps, in order. Importance -inf marks an empty slot. Ties are resolved in favour of earlier slots.

    Without `by_head`, each head keeps its `budget` most important slots. With it, the heads keep H x budget in total, and each at least one
    and at least `least_share` of the budget; a share of 1 is the same as without.
    """
    order_HT = importance_HT.argsort(dim=1, descending=True, stable=True)
    there_H = (importance_HT > -torch.inf).sum(1).tolist()
    count_H = [min(budget, there) for there in there_H]
    if by_head:
        count_H = _spread(importance_HT.gather(1, order_HT), there_H, len(there_H) * budget, max(1, int(least_share * budget)))
    return [order_T[:count].sort().values for order_T, count in zip(order_HT, count_H, strict=True)]


def _spread(sorted_HT: torch.Tensor, there_H: Sequence[int], total: int, least: int) -> list[int]:
    """Return how many of its most important slots each head keeps: `least`, plus its share of the most important of all others."""
    slots = sorted_HT.shape[1]
    given_H1 = torch.tensor([[min(least, there)] for there in there_H], device=sorted_HT.device)
    is_given_HT = torch.arange(slots, device=sorted_HT.device) < given_H1
    rest_N = torch.where(is_given_HT, -torch.inf, sorted_HT).flatten()
    free = min(total, sum(there_H)) - int(is_given_HT.sum())
    most_N = rest_N.argsort(descending=True, stable=True)[:free]
    count_H = is_given_HT.sum(1) + torch.bincount(most_N // slots, minlength=len(sorted_HT))
    found: list[int] = count_H.tolist()
    return found
