"""Advantages from rewards: how much better an attempt was than its group.

With scores R of a group of G attempts at one task (attempts without a score have advantage 0 and do not enter the statistics):

dr_grpo       R - mean                          Dr. GRPO, arXiv 2503.20783
grpo          (R - mean) / (std + 1e-4)         GRPO, arXiv 2402.03300 sec. 4.1.2 (std with n - 1, as in TRL)
rloo          R - mean of the others            RLOO, arXiv 2402.14740 eq. 8; equals dr_grpo · G / (G - 1)
lite_ppo      (R - mean) / (std of all the batch's scores + 1e-4)    "Lite PPO", arXiv 2508.08221
pass_at_k     (mean over sets of k with the attempt - mean over all sets of k) / (their std), where a set scores as its best attempt:
              "Pass@k training", arXiv 2508.10751

A group whose scores are all equal has no signal: every rule gives it 0.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import comb

import numpy as np

Scores = Sequence[float | None]
AdvantageRule = Callable[[Sequence[Scores]], list[list[float]]]

_EPSILON = 1e-4


def dr_grpo(groups: Sequence[Scores]) -> list[list[float]]:
    """Return R - mean of the group."""
    return [_spread(scores, lambda r: r - r.mean()) for scores in groups]


def grpo(groups: Sequence[Scores]) -> list[list[float]]:
    """Return (R - mean) / std of the group."""
    return [_spread(scores, lambda r: (r - r.mean()) / (_std(r) + _EPSILON)) for scores in groups]


def rloo(groups: Sequence[Scores]) -> list[list[float]]:
    """Return R minus the mean of the group's other attempts; 0 for a single attempt."""
    return [_spread(scores, lambda r: (r - r.mean()) * len(r) / (len(r) - 1) if len(r) > 1 else 0 * r) for scores in groups]


def lite_ppo(groups: Sequence[Scores]) -> list[list[float]]:
    """Return (R - mean of the group) / std over the whole batch."""
    known = np.array([score for scores in groups for score in scores if score is not None])
    scale = _std(known) + _EPSILON
    return [_spread(scores, lambda r: (r - r.mean()) / scale) for scores in groups]


def pass_at_k(groups: Sequence[Scores], *, k: int = 1) -> list[list[float]]:
    """Return how much an attempt adds to the best score of sets of `k` attempts of its group; a larger `k` means the whole group.

    With scores of 0 and 1, c of n right, and C the binomial coefficient, it equals the source's closed form:

        rho = 1 - C(n - c, k) / C(n, k)          sigma = sqrt(rho (1 - rho))
        right   (1 - rho) / sigma                wrong   (1 - rho - C(n - c - 1, k - 1) / C(n - 1, k - 1)) / sigma

    The source has no form for other scores (partial, shaped); here a set scores as its best attempt, which includes 0 and 1. If every
    set has the same score (with 0 and 1: fewer than k are wrong), all advantages are 0.
    Identity: k = 1 is `grpo` with the population's deviation (n, not n - 1), and nothing added to it.
    """
    return [_spread(scores, partial(_of_sets, k=k)) for scores in groups]


ADVANTAGES: dict[str, AdvantageRule] = {
    "dr_grpo": dr_grpo,
    "grpo": grpo,
    "rloo": rloo,
    "lite_ppo": lite_ppo,
    "pass_at_k": pass_at_k,
}


def advantage_rule(name: str, pass_k: int) -> AdvantageRule:
    """Return the rule of this name; `pass_k` is the size of the sets of `pass_at_k`."""
    return partial(pass_at_k, k=pass_k) if name == "pass_at_k" else ADVANTAGES[name]


def has_signal(scores: Scores) -> bool:
    """Return whether the group's known scores differ, so that its attempts can be compared."""
    known = [score for score in scores if score is not None]
    return len(known) > 1 and max(known) > min(known)


def _spread(scores: Scores, rule: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Apply `rule` to the known scores; unknown ones get 0."""
    if not has_signal(scores):
        return [0.0] * len(scores)
    values = iter(rule(np.array([score for score in scores if score is not None], dtype=float)).tolist())
    return [0.0 if score is None else next(values) for score in scores]


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _of_sets(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the mean score of each attempt's sets of `k`, less that of all sets, in standard deviations of all sets."""
    n, order = len(scores), np.argsort(scores, kind="stable")
    k, rising = min(k, n), scores[order]
    is_best = np.array([comb(place, k - 1) for place in range(n)]) / comb(n, k)  # share of sets in which it is the best
    mean = float(is_best @ rising)
    deviation = float(is_best @ (rising - mean) ** 2) ** 0.5
    if deviation < _EPSILON**2:
        return np.zeros(n)
    with_it = np.empty(n)
    for place in range(n):
        above = sum(comb(other - 1, k - 2) * rising[other] for other in range(place + 1, n)) if k > 1 else 0.0
        with_it[order[place]] = (comb(place, k - 1) * rising[place] + above) / comb(n - 1, k - 1)
    return (with_it - mean) / deviation
