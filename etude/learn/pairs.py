"""Preference pairs: a prompt and two completions of which one is preferred.

outcome         attempts of the highest score of a group with those of the lowest (iterative DPO: one pair a group)
length_matched  among these, the pairs that differ least in length, so that the model does not learn to prefer a length
step            two steps from one prefix whose expected values differ most (Step-DPO, arXiv 2406.18629; MCTS-DPO, arXiv 2405.00451):
                the prompt is the task's with that prefix, only the steps' own tokens are compared. Step-DPO's worse step is the
                first wrong one, and checked; MCTS-DPO's values include the model's own judgement, its labels their visits

Attempts without a score, and equal ones (token by token), make no pairs.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.prefix_values import prefixes
from etude.tasks.reward import Reward


@dataclass(frozen=True)
class Pair:
    """Token ids; neither completion is empty."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


Rewards = Sequence[Reward]
MakePairs = Callable[[Group, Rewards, int], list[Pair]]


def by_outcome(group: Group, rewards: Rewards, number: int) -> list[Pair]:
    """Return at most `number` pairs; the first attempts first, cycling through each side."""
    best, worst = _extremes(group, rewards)
    count = min(number, max(len(best), len(worst))) if best and worst else 0
    return [_pair(best[place % len(best)], worst[place % len(worst)]) for place in range(count)]


def by_length(group: Group, rewards: Rewards, number: int) -> list[Pair]:
    """Return at most `number` pairs with the least difference in length; no attempt twice."""
    left = sorted(product(*_extremes(group, rewards)), key=lambda two: abs(two[0].num_own_tokens - two[1].num_own_tokens))
    pairs: list[Pair] = []
    while left and len(pairs) < number:
        one, other = left[0]
        pairs.append(_pair(one, other))
        left = [two for two in left if two[0] is not one and two[1] is not other]
    return pairs


def by_step(group: Group, rewards: Rewards, number: int) -> list[Pair]:
    """Return at most `number` pairs with the largest differences in value; a prefix gives one, its best step with its worst.

    Values are those after the steps (`Reward.step_values`). If equal steps have several, which a tree does not give, the first counts.
    """
    behind: dict[tuple[int, ...], dict[tuple[int, ...], float]] = defaultdict(dict)
    for attempt, reward in zip(group.attempts, rewards, strict=True):
        if reward.score is None or len(reward.step_values) != len(attempt.step_lengths) + 1:
            continue
        for (before, after), value in zip(pairwise(prefixes(attempt)), reward.step_values[1:], strict=True):
            behind[(*attempt.prompt, *before)].setdefault(after[len(before) :], value)
    found = []
    for prompt, steps in behind.items():
        best, worst = max(steps, key=lambda step: steps[step]), min(steps, key=lambda step: steps[step])
        if steps[best] > steps[worst]:
            found.append((steps[best] - steps[worst], Pair(prompt, best, worst)))
    found.sort(key=lambda item: -item[0])
    return [pair for _, pair in found[:number]]


PAIRS: dict[str, MakePairs] = {"outcome": by_outcome, "length_matched": by_length, "step": by_step}


def _extremes(group: Group, rewards: Rewards) -> tuple[list[Attempt], list[Attempt]]:
    """Return the attempts of the highest and of the lowest score, without duplicates; none if all have the same score."""
    scored = [(reward.score, attempt) for attempt, reward in zip(group.attempts, rewards, strict=True) if reward.score is not None]
    high, low = (bound((score for score, _ in scored), default=0.0) for bound in (max, min))
    if high == low:
        return [], []
    best, worst = ({attempt.own_tokens: attempt for score, attempt in reversed(scored) if score == bound} for bound in (high, low))
    return [best[own] for own in reversed(best) if own not in worst], [worst[own] for own in reversed(worst) if own not in best]


def _pair(chosen: Attempt, rejected: Attempt) -> Pair:
    return Pair(chosen.prompt, chosen.own_tokens, rejected.own_tokens)
