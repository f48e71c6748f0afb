"""Advantages of steps: how much an attempt's steps changed its expected reward.

For every token of a step s of an attempt:

vineppo     w(s) · (V(s) - b(s))                                              after VinePPO, arXiv 2410.01679, sec. 4 (discount 1)
            V: the values at the boundaries of its steps (`Reward.step_values`), from a search, other attempts, or a step model
            b(s): the expected value before s from the other samples (`etude.rollouts.baselines`), or from a step model: V before s
            w(s): N · the share of the policy's answers that the attempt stands for at s (`Tree.group`); 1 for independent attempts.
            N: attempts per task, the step's mean, so that a task with more answers from a search does not count more
treerl      N / (N - 1) · ((M(s) - M) + (M(s) - M(before s))) / √n(s)        TreeRL, arXiv 2506.11902, sec. 3.2
            M(s): the mean score of the n(s) attempts that passed through s; M and N those of all

`vineppo` is a policy gradient whatever a search sampled: summed over the attempts at a node p with n(p) known samples it is N · share(p) /
(n(p) - 1) · Σ (V(draw) - mean V) ∇log π, where share(p) estimates how often the *policy* reaches p, not the search. VinePPO learns only
from the first answers, which reach a node as often as the policy does; here all samples count. A search that prunes by the values it found
(`beam`, `mcts`) still biases it a little (optional stopping); `python -m bench.gradients` measures every rule against exact gradients.
`treerl` is as published and no policy gradient.

Attempts without a score, or without values, are not counted and have advantage 0. N / (N - 1) turns scores less their mean into scores less
the mean of the others, as in TreeRL. If a difference is 0, TreeRL takes that of the step before, here 0 stays 0; TreeRL learns from some of
its leaves, with their n, here from all.

Identity: for independent attempts of one step without a step model `vineppo` is `rloo`, and `treerl` twice that.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from statistics import fmean

from etude.learn.example import Weights
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.prefix_values import prefixes, scores_through
from etude.tasks.reward import Reward

StepAdvantage = Callable[[Sequence[Group], Sequence[Sequence[Reward]]], list[list[Weights]]]
"""Advantages of every own token of the attempts, by group."""


def vineppo(groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> list[list[Weights]]:
    """Return for every own token its step's value less its baseline."""
    numbers = [sum(reward.score is not None for reward in row) for row in rewards]
    size = fmean(number for number in numbers if number) if any(numbers) else 0.0
    return [
        [_vineppo(attempt, reward, size) for attempt, reward in zip(group.attempts, row, strict=True)]
        for group, row in zip(groups, rewards, strict=True)
    ]


def _vineppo(attempt: Attempt, reward: Reward, size: float) -> Weights:
    values, num_steps = reward.step_values, len(attempt.step_lengths)
    if reward.score is None or len(values) != num_steps + 1:
        return _of_tokens(attempt, [0.0] * num_steps)
    weights = [size * share for share in attempt.step_shares] or [1.0] * num_steps
    baselines = reward.step_baselines or values[:-1]
    return _of_tokens(attempt, [weight * (value - before) for weight, value, before in zip(weights, values[1:], baselines, strict=True)])


def treerl(groups: Sequence[Group], rewards: Sequence[Sequence[Reward]]) -> list[list[Weights]]:
    """Return the advantage of every own token by TreeRL's formula."""
    return [_treerl(group, row) for group, row in zip(groups, rewards, strict=True)]


def _treerl(group: Group, rewards: Sequence[Reward]) -> list[Weights]:
    through = scores_through(group, rewards)
    mean = {prefix: fmean(scores) for prefix, scores in through.items()}
    number = len(through.get((), ()))
    found = []
    for attempt, reward in zip(group.attempts, rewards, strict=True):
        steps = prefixes(attempt)
        if reward.score is None or number < 2:
            found.append(_of_tokens(attempt, [0.0] * len(attempt.step_lengths)))
            continue
        changes = [
            number / (number - 1) * (mean[behind] - mean[()] + mean[behind] - mean[before]) / sqrt(len(through[behind]))
            for before, behind in pairwise(steps)
        ]
        found.append(_of_tokens(attempt, changes))
    return found


STEP_ADVANTAGES: dict[str, StepAdvantage] = {"vineppo": vineppo, "treerl": treerl}


def _of_tokens(attempt: Attempt, steps: Sequence[float]) -> Weights:
    """Return the advantage of steps for each of their tokens; none for an attempt without steps."""
    if not attempt.step_lengths:
        return (0.0,) * attempt.num_own_tokens
    return tuple(advantage for advantage, length in zip(steps, attempt.step_lengths, strict=True) for _ in range(length))
