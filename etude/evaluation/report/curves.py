"""Curves: the points of one metric over a run's steps, smoothed and thinned."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from etude.evaluation.report.number_format import is_number, number_or_none
from etude.evaluation.report.run_folder import Run

Points = list[tuple[float, float | None]]
"""(step, value), None where the step has no value."""
_MAX_POINTS = 300


def points_of(run: Run, phase: str, key: str) -> Points:
    """Return (step, value or None) in the order of the steps; the later line of a repeated step counts."""
    found: dict[float, float | None] = {}
    for row in run.steps:
        if row.get("phase") != phase or not is_number(row.get("step")):
            continue
        measures = with_derived(row)
        if key in measures:
            found[row["step"]] = number_or_none(measures[key])
    return sorted(found.items())


def with_derived(row: Mapping[str, Any]) -> dict[str, Any]:
    """Add metrics that are plotted but not logged: `loss`, the phase's loss, and `groups_without_signal_share`."""
    measures = dict(row)
    for loss in ("policy_loss", "imitate_loss", "preference_loss"):
        if loss in row:
            measures.setdefault("loss", row[loss])
    without, groups = row.get("groups_without_signal"), row.get("groups")
    if is_number(without) and is_number(groups) and groups > 0:
        measures["groups_without_signal_share"] = without / groups
    return measures


def running_mean(points: Points, window: int) -> Points:
    """Return the mean of the `window` steps around each step, ignoring missing values."""
    means: Points = []
    for i, (step, _) in enumerate(points):
        near = [value for _, value in points[max(0, i - window // 2) : i + window // 2 + 1] if value is not None]
        means.append((step, sum(near) / len(near) if near else None))
    return means


def thin(points: Points) -> Points:
    """Average neighbours down to about 300 points."""
    size = ceil(len(points) / _MAX_POINTS)
    if size == 1:
        return points
    thinned: Points = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        values = [value for _, value in part if value is not None]
        thinned.append((part[len(part) // 2][0], sum(values) / len(values) if values else None))
    return thinned
