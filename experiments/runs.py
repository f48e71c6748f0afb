"""Judge a difference by runs: arms of one seed are a pair, and the unit is the run, not the item.

Another run of an arm differs from the first by more than its items tell: the paired difference of two arms on number sorting has a
standard deviation of about 4 points over seeds. So every gain and every difference comes with two intervals: over items, which says how
sure the numbers of these runs are, and over runs, by which claims about methods are judged. With d_1 ... d_k the differences of k seeds:

    interval over runs   mean(d) -/+ t(0.975, k - 1) s / sqrt(k)               (Student, Biometrika 6 (1908) 1)
    seen                 (t(0.975, k - 1) + t(0.8, k - 1)) s / sqrt(k)         (Bloom, Evaluation Review 19 (1995) 547)
                         8 points + t(0.8, k - 1) s / sqrt(k)                  below five seeds, by the rule

where s is the standard deviation of d. A true difference of `seen` beyond the bound is decided in 80 % of such studies, about.

The rule (`is_above`) for "the difference is above a bound", with bounds of 0 unless a study says otherwise:

holds          five seeds or more: the whole interval over runs is above the bound
               two to four seeds: every seed is above it, and their mean by more than 8 points
does not hold  the same on the other side of the bound
undecided      otherwise, and always with one seed

Two to four seeds say too little of their own spread for the interval to be relied on: by it alone 3 seeds that agree by chance would
decide.
"""

from collections.abc import Sequence
from math import atan, cos, pi, sin, sqrt
from statistics import fmean, stdev
from typing import Any

ENOUGH, LEAST = 5, 0.08
"""From how many seeds on the interval over runs decides; how far beyond the bound the mean of fewer has to be."""
RULE = "by runs"
"""How results name the rule."""


def run_interval(differences: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """Return the t interval of the mean over runs; None with fewer than two.

    >>> [round(end, 3) for end in run_interval([0.1, 0.2, 0.3])]
    [-0.048, 0.448]
    """
    if len(differences) < 2:
        return None
    middle = fmean(differences)
    half = t_quantile((1 + confidence) / 2, len(differences) - 1) * stdev(differences) / sqrt(len(differences))
    return middle - half, middle + half


def over_runs(name: str, differences: Sequence[float]) -> dict[str, Any]:
    """Return a difference of each seed and, with two or more, the ends of the interval over runs, as measures of a row."""
    found: dict[str, Any] = {f"{name}_each_seed": [round(value, 4) for value in differences]}
    if ends := run_interval(differences):
        found |= {f"{name}_run_low": ends[0], f"{name}_run_high": ends[1]}
    return found


def is_above(differences: Sequence[float], bound: float = 0.0, *, least: float = LEAST) -> bool | None:
    """Judge by the rule whether a difference is above the bound; None: undecided. `least`: how far fewer than five seeds have to be beyond.

    >>> is_above([0.1, 0.2, 0.3]), is_above([-0.1, -0.2, -0.3]), is_above([0.01, 0.02, 0.03]), is_above([0.4])
    (True, False, None, None)
    """
    beyond = [difference - bound for difference in differences]
    if len(beyond) >= ENOUGH:
        low, high = run_interval(beyond) or (0.0, 0.0)
        return True if low > 0 else False if high < 0 else None
    if len(beyond) < 2 or abs(fmean(beyond)) <= least:
        return None
    return True if min(beyond) > 0 else False if max(beyond) < 0 else None


def is_below(differences: Sequence[float], bound: float = 0.0, *, least: float = LEAST) -> bool | None:
    """Judge by the rule whether a difference is below the bound."""
    return is_above([-difference for difference in differences], -bound, least=least)


def power_of(differences: Sequence[float], least: float | None = LEAST) -> dict[str, Any]:
    """Return the number of seeds, the standard deviation over them and the size of a difference that so many see in 80 % of studies.

    Without the last two where there is one seed. `least` is that of `is_above`; None: only the interval is asked, whatever the number.
    """
    seeds = len(differences)
    if seeds < 2:
        return {"seeds": seeds}
    sd = stdev(differences)
    error = sd / sqrt(seeds)
    margin = t_quantile(0.975, seeds - 1) * error if least is None or seeds >= ENOUGH else least
    return {"seeds": seeds, "sd": sd, "seen": margin + t_quantile(0.8, seeds - 1) * error}


def in_points(differences: Sequence[float]) -> str:
    """Write the mean over runs with its interval in percentage points.

    >>> in_points([0.1, 0.2, 0.3]), in_points([0.125])
    ('+20.0 [-4.8, +44.8] over 3 runs', '+12.5 in one run')
    """
    middle, ends = f"{100 * fmean(differences):+.1f}", run_interval(differences)
    if ends is None:
        return f"{middle} in one run"
    return f"{middle} [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}] over {len(differences)} runs"


def t_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's t distribution with so many degrees of freedom, for a share from one half on, by bisection.

    It stands here since scipy, which has it, is no dependency of the base install, in which studies run.

    >>> round(t_quantile(0.975, 2), 3), round(t_quantile(0.8, 4), 3)
    (4.303, 0.941)
    """
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 + _within(middle, freedom)) / 2 < share else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """Return the probability of a value between -t and t (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4)."""
    angle = atan(t / sqrt(freedom))
    term, total = (cos(angle), 0.0) if freedom % 2 else (1.0, 0.0)
    for power in range(1 if freedom % 2 else 0, freedom - 1, 2):
        total += term
        term *= cos(angle) ** 2 * (power + 1) / (power + 2)
    return 2 * (angle + sin(angle) * total) / pi if freedom % 2 else sin(angle) * total
