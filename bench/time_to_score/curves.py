"""When does a score that is measured now and then reach a target? Arithmetic on curves of scores over seconds."""

from collections.abc import Sequence


def rising(scores: Sequence[float]) -> list[float]:
    """Return the rising curve that is nearest to the scores by squared distance: isotonic regression, by pooling adjacent violators.

    Where a score is lower than the one before, both become their mean, which may pull in more; scores that rise stay as they are.

    >>> rising([0.1, 0.5, 0.3, 0.6])
    [0.1, 0.4, 0.4, 0.6]
    """
    pools: list[list[float]] = []
    for score in scores:
        pools.append([score])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    return [_mean(pool) for pool in pools for _ in pool]


def seconds_to(target: float, seconds: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return when the rising curve first reaches the target, straight between two measurements; None where it never does."""
    curve = rising(scores)
    if curve[0] >= target:
        return seconds[0]
    for place in range(1, len(curve)):
        if curve[place] >= target:
            share = (target - curve[place - 1]) / (curve[place] - curve[place - 1])
            return seconds[place - 1] + share * (seconds[place] - seconds[place - 1])
    return None


def half_gain(scores: Sequence[float]) -> tuple[float, float]:
    """Return the gain from the first score to the last, as they were measured, and the score at half of it."""
    gain = scores[-1] - scores[0]
    return gain, scores[0] + gain / 2


def late(scores: Sequence[float]) -> float:
    """Return the mean of the second half of the scores after the first one.

    >>> late([0.1, 0.2, 0.3, 0.4, 0.6])
    0.5
    """
    return _mean(scores[1 + len(scores[1:]) // 2 :])


def times_as_long(theirs: float | None, ours: float | None) -> float | None:
    """Divide a peer's seconds by ours: 0 where ours never get there, None where theirs don't."""
    if theirs is None:
        return None
    return 0.0 if ours is None else theirs / ours


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
