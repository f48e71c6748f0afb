"""Confidence intervals and paired tests for accuracies and rewards.

| question | function | source |
|---|---|---|
| how certain is an accuracy? | `wilson_interval` | Wilson, JASA 22 (1927) |
| how often does one of k samples succeed? | `pass_at_k`, `pass_curve` | Chen et al., arXiv 2107.03374, eq. 1 |
| how certain is a mean? | `mean_interval` | Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3 |
| how certain is a ratio of sums? | `ratio_of_sums` | the same bootstrap, over pairs |
| are two models different on the same items? | `paired_test` | McNemar (1947), exact; Newcombe, Stat. Med. 17 (1998) 2635, method 10 |
| and if each item was answered in several runs? | `sign_flip_test` | Fisher, The Design of Experiments (1935), section 21, exact |
| and by numbers of any range, such as rewards? | `paired_mean_test` | the same test; bootstrap |
| are two numbers of the same runs correlated? | `rank_correlation` | Spearman, Am. J. Psychol. 15 (1904) 72 |

All are pure functions of counts and numbers. The caller decides whether an item without a score counts as wrong or is excluded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, isfinite, sqrt
from statistics import NormalDist

import numpy as np

from etude.errors import UserError
from etude.randomness import seed_for

_DRAWS_AT_ONCE = 1_000_000
_FLIPPED_EXACTLY, _FLIPS = 14, 20_000


@dataclass(frozen=True)
class PairedTest:
    """A paired comparison of two models on the same items."""

    n: int
    """Items that both models answered."""
    only_first: int
    """Items that only the first model got right."""
    only_second: int
    """Items that only the second model got right."""
    difference: float
    """Accuracy of the second minus accuracy of the first, in [-1, 1]."""
    difference_low: float
    """Lower end of Newcombe's interval for the difference."""
    difference_high: float
    """Upper end of Newcombe's interval for the difference."""
    p_value: float
    """Two-sided exact McNemar test: the probability of so uneven a split if either model is equally likely to be the correct one."""


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    With p = successes / n and z the normal quantile at (1 + confidence) / 2:

        (p + z^2 / 2n  -/+  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    It stays inside [0, 1] and, unlike the textbook interval, has a width at 0 of n and at n of n. Without items (n = 0) it is (0, 1).
    Raises UserError for counts or a confidence out of range.

    >>> [round(end, 3) for end in wilson_interval(8, 10)]
    [0.49, 0.943]
    """
    _check_counts(successes, n)
    z = _quantile(confidence)
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Estimate, without bias, the probability that at least one of k attempts is correct, from n attempts of which `correct` are correct.

        1 - C(n - correct, k) / C(n, k)        (Chen et al. 2021, eq. 1)

    At k = 1 it is `correct / n`. Integers are exact, so large n neither overflow nor cancel. Raises UserError if k or `correct` is out of
    range.

    >>> pass_at_k(n=4, correct=2, k=2)  # of the 6 pairs of attempts, 1 has no right one
    0.8333333333333334
    """
    _check_counts(correct, n)
    if not 1 <= k <= n:
        raise UserError(f"k must be in [1, n] with n = {n} attempts, got {k}: sample more attempts or ask for a smaller k")
    total = comb(n, k)
    return (total - comb(n - correct, k)) / total


def pass_curve(groups: Sequence[Sequence[bool]]) -> dict[int, float]:
    """Return pass@k for k = 1, 2, 4, ... up to the size of the smallest group, as the mean of `pass_at_k` over the same groups for each k.

    `groups[i][j]` says whether attempt j at task i is correct.

    >>> pass_curve([[True, False, False, False], [True, True, True, True, False]])
    {1: 0.525, 2: 0.75, 4: 1.0}
    """
    fewest = min(map(len, groups))
    sizes = [2**power for power in range(fewest.bit_length()) if 2**power <= fewest]
    return {k: sum(pass_at_k(len(group), sum(group), k) for group in groups) / len(groups) for k in sizes}


def shares_interval(shares: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over items with several answers each, given each item's share of correct answers.

    If every share is 0 or 1, the bootstrap would have no width; then it is Wilson's interval, as if each item had one answer.

    >>> shares_interval([0.0] * 100)[1] > 0.03
    True
    """
    if set(shares) <= {0.0, 1.0}:
        return wilson_interval(round(sum(shares)), len(shares))
    return mean_interval(shares)


def mean_interval(values: Sequence[float], confidence: float = 0.95, *, resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean: the middle `confidence` of the means of samples with replacement.

    It assumes no distribution, only independent values (average the attempts at one task first). It is somewhat narrow below about 20
    values. The same values and seed give the same interval. Time O(resamples x values), memory bounded. Raises UserError for no values or
    values that are not finite, and for a confidence out of range.

    >>> mean_interval([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0 or not np.isfinite(sample).all():
        raise UserError(f"values must be one or more finite numbers, got {len(sample)} values: leave out what was not scored")
    _quantile(confidence)
    generator = np.random.default_rng(seed_for(seed, "mean_interval"))
    at_once = max(1, _DRAWS_AT_ONCE // sample.size)
    means = [
        sample[generator.integers(0, sample.size, (min(at_once, resamples - done), sample.size))].mean(axis=1)
        for done in range(0, resamples, at_once)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def ratio_of_sums(
    tops: Sequence[float], bottoms: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float] | None:
    """Return sum(tops) / sum(bottoms) with its 95 % percentile bootstrap interval over pairs (Efron and Tibshirani 1993, section 13.3).

    None if the sum of the bottoms is not above 0 in 99 % of the resamples: the ratio has no bounds then. Raises UserError without pairs.

    >>> ratio_of_sums([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    (0.5, 0.5, 0.5)
    """
    pairs_N2 = np.array(list(zip(tops, bottoms, strict=True)), dtype=np.float64)
    if not len(pairs_N2):
        raise UserError("a ratio of sums needs at least one pair, got none")
    generator = np.random.default_rng(seed_for(seed, "ratio_of_sums"))
    sums_R2 = np.array([pairs_N2[generator.integers(0, len(pairs_N2), len(pairs_N2))].sum(axis=0) for _ in range(resamples)])
    top, bottom = pairs_N2.sum(axis=0)
    is_usable_R = sums_R2[:, 1] > 0
    if bottom <= 0 or is_usable_R.mean() < 0.99:
        return None
    low, high = np.quantile(sums_R2[is_usable_R, 0] / sums_R2[is_usable_R, 1], [0.025, 0.975])
    return float(top / bottom), float(low), float(high)


def paired_test(first: Sequence[bool], second: Sequence[bool], confidence: float = 0.95) -> PairedTest:
    """Compare two models on the same items, in the same order: `first[i]` and `second[i]` say whether item i was answered correctly.

    The p-value is McNemar's exact test, the interval Newcombe's. Their conclusions may differ if p is close to 1 - confidence.
    Raises UserError for lists of different lengths and for no items.

    >>> test = paired_test([True, False, False, False, False, False], [True, True, True, True, True, True])
    >>> test.only_first, test.only_second, test.p_value
    (0, 5, 0.0625)
    """
    if len(first) != len(second):
        raise UserError(f"both models must answer the same items, got {len(first)} and {len(second)}: pair the items by key first")
    if not first:
        raise UserError("a paired test needs at least one item, got none")
    both = sum(bool(a and b) for a, b in zip(first, second, strict=True))
    only_first, only_second = sum(map(bool, first)) - both, sum(map(bool, second)) - both
    low, high = _newcombe_interval(both, only_first, only_second, len(first), confidence)
    return PairedTest(
        n=len(first),
        only_first=only_first,
        only_second=only_second,
        difference=(only_second - only_first) / len(first),
        difference_low=low,
        difference_high=high,
        p_value=_mcnemar_p_value(only_first, only_second),
    )


def sign_flip_test(differences: Sequence[int]) -> float:
    """Return the two-sided p-value of a sum of paired differences: the probability that random signs give a sum at least as far from 0.

    `differences[i]` is, for item i, the number of runs in which the second model is correct minus that of the first. Under the null
    hypothesis the sign of each difference is a fair coin. Items are independent; runs on one item need not be. Exact, by adding one item at
    a time to the distribution of the sum. With differences of -1, 0 and 1 it is McNemar's test.

    >>> sign_flip_test([1, 1, 1, 1, 1, 0])
    0.0625
    """
    steps = [abs(difference) for difference in differences if difference]
    chances = np.zeros(2 * sum(steps) + 1)
    middle = sum(steps)
    chances[middle] = 1.0
    for step in steps:
        chances = 0.5 * (np.roll(chances, step) + np.roll(chances, -step))  # the sum stays inside, so nothing wraps around
    far = abs(sum(differences))
    return min(1.0, float(chances[: middle - far + 1].sum() + chances[middle + far :].sum()))


@dataclass(frozen=True)
class PairedMeanTest:
    """A paired comparison of the means of two models' numbers on the same items."""

    n: int
    difference: float
    """Mean of the second minus mean of the first."""
    difference_low: float
    """Lower end of its bootstrap interval over items."""
    difference_high: float
    """Upper end of its bootstrap interval over items."""
    p_value: float
    """Two-sided sign-flip test."""


def paired_mean_test(differences: Sequence[float]) -> PairedMeanTest:
    """Compare two models by the `differences` of their numbers, second minus first, on each item.

    The p-value is the probability that random signs give a mean at least as far from 0 (Fisher's randomisation test). With up to 14 items
    that differ, all signs are tried. With more, 20,000 sign vectors are sampled, and the given signs count as one more: the smallest
    p-value is 1 / 20,001.

    >>> test = paired_mean_test([0.5, 0.25, 0.5, 0.0])
    >>> test.difference, test.p_value
    (0.3125, 0.25)
    """
    values = np.asarray(differences, dtype=np.float64)
    low, high = mean_interval(differences)
    return PairedMeanTest(len(values), float(values.mean()), low, high, _flips_p_value(values[values != 0]))


def _flips_p_value(values: np.ndarray) -> float:
    if not len(values):
        return 1.0
    far = abs(values.sum()) * (1 - 1e-12)  # sums of the same numbers in another order differ by rounding
    if len(values) <= _FLIPPED_EXACTLY:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((abs(signs @ values) >= far).mean())
    generator, found = np.random.default_rng(seed_for(0, "paired_mean_test")), 0
    at_once = max(1, _DRAWS_AT_ONCE // len(values))
    for done in range(0, _FLIPS, at_once):
        signs = 2 * generator.integers(0, 2, (min(at_once, _FLIPS - done), len(values))) - 1
        found += int((abs(signs @ values) >= far).sum())
    return (found + 1) / (_FLIPS + 1)


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation (Pearson's of the ranks, ties with their mean rank); 0 if one of them is constant.

    >>> round(rank_correlation([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]), 12)
    -0.5
    """
    if len(set(first)) < 2 or len(set(second)) < 2:
        return 0.0
    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def correlation_interval(first: Sequence[float], second: Sequence[float], draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the rank correlation over pairs; the same numbers give the same interval."""
    one, other = np.asarray(first), np.asarray(second)
    chosen = np.random.default_rng(0).integers(len(one), size=(draws, len(one)))
    low, high = np.quantile([rank_correlation(one[draw].tolist(), other[draw].tolist()) for draw in chosen], [0.025, 0.975])
    return float(low), float(high)


def ranks(values: Sequence[float]) -> np.ndarray:
    """Return the rank of each value from 1; equal values share the mean of their ranks."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def _mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Return McNemar's exact p-value, min(1, 2 P(X <= min(only_first, only_second))) with X ~ Binomial(discordant pairs, 1/2).

    Integers are exact up to the last division.
    """
    discordant = only_first + only_second
    term = tail = 1
    for i in range(min(only_first, only_second)):
        term = term * (discordant - i) // (i + 1)  # C(discordant, i + 1) from C(discordant, i)
        tail += term
    return min(1.0, 2 * tail / 2**discordant)


def _newcombe_interval(both: int, only_first: int, only_second: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Newcombe's interval (method 10): the Wilson intervals of both accuracies, combined with the correlation phi of the pairs.

    With d = p2 - p1 and (l1, u1), (l2, u2) the Wilson intervals:

        low  = d - sqrt((p2 - l2)^2 - 2 phi (p2 - l2)(u1 - p1) + (u1 - p1)^2)
        high = d + sqrt((u2 - p2)^2 - 2 phi (u2 - p2)(p1 - l1) + (p1 - l1)^2)
    """
    first, second = both + only_first, both + only_second
    low_1, high_1 = wilson_interval(first, n, confidence)
    low_2, high_2 = wilson_interval(second, n, confidence)
    down_1, up_1 = first / n - low_1, high_1 - first / n
    down_2, up_2 = second / n - low_2, high_2 - second / n
    phi = _corrected_phi(both, only_first, only_second, n)
    difference = (only_second - only_first) / n
    below = sqrt(max(0.0, down_2**2 - 2 * phi * down_2 * up_1 + up_1**2))
    above = sqrt(max(0.0, up_2**2 - 2 * phi * up_2 * down_1 + down_1**2))
    return max(-1.0, difference - below), min(1.0, difference + above)


def _corrected_phi(both: int, only_first: int, only_second: int, n: int) -> float:
    """Return the phi coefficient of the 2 x 2 table; 0 if a margin is empty; method 10 shrinks a positive one towards 0."""
    neither = n - both - only_first - only_second
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    if margins == 0:
        return 0.0
    covariance = both * neither - only_first * only_second
    return (covariance if covariance < 0 else max(0.0, covariance - n / 2)) / sqrt(margins)


def _quantile(confidence: float) -> float:
    """Return the standard normal quantile that leaves (1 - confidence) / 2 above it."""
    if not (isfinite(confidence) and 0.0 < confidence < 1.0):
        raise UserError(f"confidence must be in (0, 1), got {confidence}: 0.95 is usual")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _check_counts(successes: int, n: int) -> None:
    if not 0 <= successes <= n:
        raise UserError(f"successes must be in [0, n], got {successes} of {n}")
