"""Verdicts on steps → credit: what an attempt's steps changed in what was expected of it.

With values V at the boundaries of an attempt's steps (`Verdict.steps`: before the first, and behind each), for every token of a step s:

difference  V(s) - V(before s)                                                   VinePPO, arXiv 2410.01679, eq. 5 (discount 1)
tree        N / (N - 1) · ((V(s) - V(root)) + (V(s) - V(before s))) / √n(s)      TreeRL, arXiv 2506.11902, sec. 3.2

where N attempts are in the group and n(s) of them have come through s: N / (N - 1) makes of scores less their mean those less the mean of
the others, as the paper has them. It replaces a difference of 0 by the one of the step before; here 0 stays 0.

An attempt without values, or without a score, gets no credit. Identity: for attempts of one step, whose value before it is the mean of
their scores, `difference` is `centred`, and `tree` twice `leave_one_out` (unless some were drawn several times).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import sqrt

from etude.explore.attempts import Group
from etude.feedback.verdict import Verdict
from etude.learn.example import Weights

StepCredit = Callable[[Group, Sequence[Verdict]], list[Weights]]


def difference(group: Group, verdicts: Sequence[Verdict]) -> list[Weights]:
    """Of every own token of the attempts."""
    return _by_step(group, verdicts, lambda before, behind, root, shared: behind - before)


def tree(group: Group, verdicts: Sequence[Verdict]) -> list[Weights]:
    """Of every own token of the attempts."""
    number = len(group.attempts)
    scale = number / (number - 1) if number > 1 else 0.0
    return _by_step(group, verdicts, lambda before, behind, root, shared: scale * (behind - root + behind - before) / sqrt(shared))


STEP_CREDIT: dict[str, StepCredit] = {"difference": difference, "tree": tree}


def _by_step(group: Group, verdicts: Sequence[Verdict], rule: Callable[[float, float, float, int], float]) -> list[Weights]:
    """`rule` of the values before and behind a step and at the root, and of how many attempts came through it."""
    own = [attempt.own_tokens for attempt in group.attempts]
    ends = [[sum(attempt.steps[: number + 1]) for number in range(len(attempt.steps))] for attempt in group.attempts]
    through = Counter(tokens[:end] for tokens, mine in zip(own, ends, strict=True) for end in mine)
    found = []
    for attempt, tokens, mine, verdict in zip(group.attempts, own, ends, verdicts, strict=True):
        values = verdict.steps
        if verdict.score is None or len(values) != len(mine) + 1:
            found.append((0.0,) * attempt.num_own_tokens)
            continue
        steps = zip(values, values[1:], mine, attempt.steps, strict=False)
        weights = [(rule(before, behind, values[0], through[tokens[:end]]), length) for before, behind, end, length in steps]
        found.append(tuple(weight for weight, length in weights for _ in range(length)))
    return found
