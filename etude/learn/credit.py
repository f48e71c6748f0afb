"""Verdicts → credit: how much better an attempt was than its group.

With scores R of a group of G attempts at one task (attempts without a score get no credit and do not enter the statistics):

centred       R - mean                          Dr. GRPO, arXiv 2503.20783
standardised  (R - mean) / (std + 1e-4)         GRPO, arXiv 2402.03300 sec. 4.1.2 (std with n - 1, as in TRL)
leave_one_out R - mean of the others            RLOO, arXiv 2402.14740 eq. 8; equals centred · G / (G - 1)
batch         (R - mean) / (std of all the batch's scores + 1e-4)    "Lite PPO", arXiv 2508.08221

A group whose scores are all equal has no signal: every rule gives it 0.
"""

from collections.abc import Callable, Sequence

import numpy as np

Scores = Sequence[float | None]
Credit = Callable[[Sequence[Scores]], list[list[float]]]

_EPSILON = 1e-4


def centred(groups: Sequence[Scores]) -> list[list[float]]:
    """R - mean of the group."""
    return [_spread(scores, lambda r: r - r.mean()) for scores in groups]


def standardised(groups: Sequence[Scores]) -> list[list[float]]:
    """(R - mean) / std of the group."""
    return [_spread(scores, lambda r: (r - r.mean()) / (_std(r) + _EPSILON)) for scores in groups]


def leave_one_out(groups: Sequence[Scores]) -> list[list[float]]:
    """R minus the mean of the group's other attempts; a lone attempt has nothing to compare with and gets 0."""
    return [_spread(scores, lambda r: (r - r.mean()) * len(r) / (len(r) - 1) if len(r) > 1 else 0 * r) for scores in groups]


def batch_standardised(groups: Sequence[Scores]) -> list[list[float]]:
    """(R - mean of the group) / std over the whole batch."""
    known = np.array([score for scores in groups for score in scores if score is not None])
    scale = _std(known) + _EPSILON
    return [_spread(scores, lambda r: (r - r.mean()) / scale) for scores in groups]


CREDIT: dict[str, Credit] = {
    "centred": centred,
    "standardised": standardised,
    "leave_one_out": leave_one_out,
    "batch": batch_standardised,
}


def has_signal(scores: Scores) -> bool:
    """Whether the group's known scores differ, so that its attempts can be compared."""
    known = [score for score in scores if score is not None]
    return len(known) > 1 and max(known) > min(known)


def _spread(scores: Scores, rule: Callable[[np.ndarray], np.ndarray]) -> list[float]:
    """Apply `rule` to the known scores and put 0 where there is none."""
    if not has_signal(scores):
        return [0.0] * len(scores)
    values = iter(rule(np.array([score for score in scores if score is not None], dtype=float)).tolist())
    return [0.0 if score is None else next(values) for score in scores]


def _std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
