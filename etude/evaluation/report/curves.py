"""Curves: the points of one metric over a run's steps, smoothed and thinned."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from etude.evaluation.report.number_format import is_number, number_or_none
from etude.evaluation.report.run_folder import Run

Points = list[tuple[float, float | None]]
"""(step, value), None where the step has no value."""
MAX_POINTS = 300
"""Maximum number of points of a curve on the page, about."""
TOTALS = {"tokens_so_far": "sampled_tokens", "minutes_so_far": "minutes"}
"""Measures that are running totals, with what they add up."""
_TIMES = ("rollout_seconds", "feedback_seconds", "learn_seconds")


def points_of(run: Run, phase: str, key: str) -> Points:
    """Return (step, value or None) in the order of the steps; the later line of a repeated step counts."""
    if key in TOTALS:
        return running_total(points_of(run, phase, TOTALS[key]))
    found: dict[float, float | None] = {}
    for row in run.steps:
        if row.get("phase") != phase or not is_number(row.get("step")):
            continue
        measures = with_derived(row)
        if key in measures:
            found[row["step"]] = number_or_none(measures[key])
    return sorted(found.items())


def with_derived(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add metrics that are plotted but not logged: `loss` of the phase, `groups_without_signal_share` and `minutes`."""
    measures = dict(row)
    for loss in ("policy_loss", "imitate_loss", "preference_loss"):
        if loss in row:
            measures.setdefault("loss", row[loss])
    without, groups = row.get("groups_without_signal"), row.get("groups")
    if is_number(without) and is_number(groups) and groups > 0:
        measures["groups_without_signal_share"] = without / groups
    times = [row[name] for name in _TIMES if is_number(row.get(name))]
    if times:
        measures["minutes"] = sum(times) / 60
    return measures


def running_total(points: Points) -> Points:
    """Return the sum of the values up to each step; a missing value stays missing and adds nothing."""
    total = 0.0
    totals: Points = []
    for step, value in points:
        total += value or 0
        totals.append((step, None if value is None else total))
    return totals


def running_mean(points: Points, window: int) -> Points:
    """Return the mean of the `window` steps around each step, ignoring missing values."""
    means: Points = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - window // 2) : i + window // 2 + 1] if value is not None]
        means.append((step, sum(near) / len(near) if near else None))
    return means


def thin(points: Points) -> Points:
    """Average neighbours down to about `MAX_POINTS` points."""
    size = ceil(len(points) / MAX_POINTS)
    if size == 1:
        return points
    thinned: Points = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part if value is not None]
        thinned.append((part[len(part) // 2][0], sum(values) / len(values) if values else None))
    return thinned
