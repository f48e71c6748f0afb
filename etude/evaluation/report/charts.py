"""Charts: computes the geometry, which the template renders, escapes and styles as SVG."""

from collections.abc import Sequence
from typing import Any

from etude.evaluation.report.axes import BOTTOM, LEFT, RIGHT, TOP, path_data, scale, tick_label, ticks_of
from etude.evaluation.report.checks import checks_of
from etude.evaluation.report.curves import Points, points_of, running_mean, thin
from etude.evaluation.report.hover import flat_values, hover_data
from etude.evaluation.report.panels import PANELS, Panel
from etude.evaluation.report.run_folder import Run


def charts_of(runs: Sequence[Run], phase: str) -> list[dict[str, Any]]:
    """Build the charts of a phase that have data."""
    by_title = {panel.title: panel for panel in (*PANELS, *(panel for run in runs for panel in run.panels))}
    return [chart for panel in by_title.values() if (chart := _chart(panel, runs, phase))]


def _chart(panel: Panel, runs: Sequence[Run], phase: str) -> dict[str, Any] | None:
    lines = [(i, j, points_of(run, phase, key)) for i, run in enumerate(runs) for j, key in enumerate(panel.measures)]
    drawn = [line for line in lines if any(value is not None for _, value in line[2])]
    values = [value for *_, points in drawn for _, value in points if value is not None]
    if not values:
        return None
    all_steps = [step for *_, points in drawn for step, _ in points]
    x_low, x_high = min(all_steps), max(all_steps)
    is_share = panel.is_share and min(values) >= 0 and max(values) <= 1  # mean rewards may lie anywhere
    y_ticks = _value_ticks(panel, min(values), max(values))
    across = scale(x_low, x_high, LEFT, RIGHT)
    up = scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    falls = [fall for i, _, points in drawn for fall in _falls(panel, runs[i], phase, points)]
    window = max(len(points) for *_, points in drawn) // 15
    steps = [tick for tick in ticks_of(x_low, x_high, whole=True) if x_low <= tick <= x_high]
    return {
        "title": panel.title,
        "unit": panel.unit or "no unit",
        "flat": "" if falls else flat_values(panel, drawn, is_share),
        "hover": hover_data([(_name(panel, runs, i, j), points) for i, j, points in drawn], across, up, is_share),
        "legend": _legend(panel, drawn),
        "window": window if window > 1 else None,
        "x_ticks": [(across(tick), f"{tick:,.0f}") for tick in steps],
        "y_ticks": [(up(tick), tick_label(tick, y_ticks[1] - y_ticks[0], is_share)) for tick in y_ticks],
        "label": _chart_label(panel, runs, drawn),
        "marks": [(across(step), up(value)) for step, value in falls],
        "lines": [
            {
                "colour": run_index if len(runs) > 1 else key_index,
                "dashed": key_index > 0,
                "each": path_data(thin(points), across, up),
                "mean": path_data(thin(running_mean(points, window)), across, up) if window > 1 else "",
            }
            for run_index, key_index, points in drawn
        ],
    }


def _name(panel: Panel, runs: Sequence[Run], run_index: int, key_index: int) -> str:
    """Name a curve, with its run if there are several."""
    name = list(panel.measures.values())[key_index]
    return f"{runs[run_index].name}, {name}" if len(runs) > 1 else name


def _legend(panel: Panel, drawn: Sequence[tuple[int, int, Points]]) -> list[str]:
    """Return the names of the curves; a panel of one curve needs none."""
    return list(panel.measures.values())[: 1 + max(key_index for _, key_index, _ in drawn)] if len(panel.measures) > 1 else []


def _falls(panel: Panel, run: Run, phase: str, points: Points) -> list[tuple[float, float]]:
    """Return the points of steps followed by a rollback."""
    checks = checks_of(run) if panel.marks_rollbacks else []
    fallen = {check["step"] for check in checks if check["phase"] == phase and not check["passed"]}
    return [(step, value) for step, value in points if step in fallen and value is not None]


def _value_ticks(panel: Panel, low: float, high: float) -> list[float]:
    """Choose the ticks of the value axis: shares from 0 to 100 %, or to the largest if the panel is zoomed; other values by their range."""
    if not (panel.is_share and 0 <= low <= high <= 1):
        return ticks_of(low, high)
    return ticks_of(0.0, high) if panel.is_zoomed and high > 0 else [0, 0.25, 0.5, 0.75, 1]


def _chart_label(panel: Panel, runs: Sequence[Run], drawn: Sequence[tuple[int, int, Points]]) -> str:
    """Describe the chart in a sentence for screen readers."""
    parts = []
    for run_index, key_index, points in drawn:
        (first, start), *_, (last, end) = [point for point in points if point[1] is not None] * 2
        parts.append(f"{_name(panel, runs, run_index, key_index)}: {start:.3g} at step {first}, {end:.3g} at step {last}")
    unit = f" ({panel.unit})" if panel.unit else ""
    return f"{panel.title}{unit} by step. {'; '.join(parts)}."
