"""Verdicts on steps → credit: what an attempt's steps changed in what was expected of it.

For every token of a step s of an attempt:

difference  k(s) / n(s) · (V(s) - V(before s))                               VinePPO, arXiv 2410.01679, sec. 4 (discount 1)
            V: the values at the boundaries of its steps (`Verdict.step_values`), of a search or of a step model
            k(s): how often s was drawn, n(s): the attempts that came through it; equal where attempts are independent
tree        N / (N - 1) · ((M(s) - M) + (M(s) - M(before s))) / √n(s)        TreeRL, arXiv 2506.11902, sec. 3.2
            M(s): the mean score of the n(s) attempts that came through s; M and N those of all

Attempts without a score count nowhere and get no credit; nor do those without values. N / (N - 1) makes of scores less their mean those
less the mean of the others, as TreeRL has them; where a difference is 0 it takes that of the step before, here 0 stays 0, and it learns
from some of its leaves, n among these, here from all. A step that several attempts share is learned from with each of them: by `difference`
k times in all, so that what was drawn at a place balances wherever a search went on from, by `tree` √n times.

Identity: for attempts of one step, whose value before it is the mean of their scores, `difference` is `centred`, and `tree` twice
`leave_one_out` (unless some were drawn several times).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from statistics import fmean

from etude.explore.attempts import Attempt, Group
from etude.explore.beginnings import beginnings, scores_through
from etude.feedback.verdict import Verdict
from etude.learn.example import Weights

StepCredit = Callable[[Group, Sequence[Verdict]], list[Weights]]


def difference(group: Group, verdicts: Sequence[Verdict]) -> list[Weights]:
    """Of every own token of the attempts."""
    found = []
    for attempt, verdict in zip(group.attempts, verdicts, strict=True):
        values, is_known = verdict.step_values, verdict.score is not None and len(verdict.step_values) == len(attempt.step_lengths) + 1
        changes = [behind - before for before, behind in pairwise(values)] if is_known else [0.0] * len(attempt.step_lengths)
        draws = attempt.step_draws or (1.0,) * len(changes)
        found.append(_of_tokens(attempt, [each * change for each, change in zip(draws, changes, strict=True)]))
    return found


def tree(group: Group, verdicts: Sequence[Verdict]) -> list[Weights]:
    """Of every own token of the attempts."""
    through = scores_through(group, verdicts)
    mean = {beginning: fmean(scores) for beginning, scores in through.items()}
    number = len(through.get((), ()))
    found = []
    for attempt, verdict in zip(group.attempts, verdicts, strict=True):
        steps = beginnings(attempt)
        if verdict.score is None or number < 2:
            found.append(_of_tokens(attempt, [0.0] * len(attempt.step_lengths)))
            continue
        changes = [
            number / (number - 1) * (mean[behind] - mean[()] + mean[behind] - mean[before]) / sqrt(len(through[behind]))
            for before, behind in pairwise(steps)
        ]
        found.append(_of_tokens(attempt, changes))
    return found


STEP_CREDIT: dict[str, StepCredit] = {"difference": difference, "tree": tree}


def _of_tokens(attempt: Attempt, steps: Sequence[float]) -> Weights:
    """The credit of steps for each of their tokens; none for an attempt that nobody parted."""
    if not attempt.step_lengths:
        return (0.0,) * attempt.num_own_tokens
    return tuple(credit for credit, length in zip(steps, attempt.step_lengths, strict=True) for _ in range(length))
