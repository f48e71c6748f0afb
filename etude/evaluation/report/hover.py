"""What the page's script shows of a chart's points on demand, and panels whose values never change, which need no chart."""

import json
from collections.abc import Callable, Sequence

from etude.evaluation.report.curves import MAX_POINTS, Points, thin
from etude.evaluation.report.number_format import MINUS, THIN_SPACE
from etude.evaluation.report.panels import Panel


def hover_data(curves: Sequence[tuple[str, Points]], across: Callable[[float], float], up: Callable[[float], float], is_share: bool) -> str:
    """Encode the points of named curves as JSON: x and y in pixels, the step, and the value in words.

    `before` is what to say before a step: a thinned curve holds means of neighbouring steps.
    """
    is_thinned = any(len(points) > MAX_POINTS for _, points in curves)
    lines = [
        {
            "name": name,
            "points": [[across(step), up(value), step, value_text(value, is_share)] for step, value in thin(points) if value is not None],
        }
        for name, points in curves
    ]
    return json.dumps({"before": "around step" if is_thinned else "step", "lines": lines}, separators=(",", ":"))


def flat_values(panel: Panel, curves: Sequence[tuple[int, int, Points]], is_share: bool) -> str:
    """Describe a panel in which every measure has one value at two steps or more, in all runs; "" for others.

    A curve is (index of its run, index of its measure, points).
    """
    found: dict[int, set[float]] = {}
    for _, key_index, points in curves:
        found.setdefault(key_index, set()).update(value for _, value in points if value is not None)
    num_steps = len({step for *_, points in curves for step, value in points if value is not None})
    if num_steps < 2 or any(len(values) > 1 for values in found.values()):
        return ""
    names = list(panel.measures.values())
    said = {names[key_index]: value_text(values.pop(), is_share) for key_index, values in sorted(found.items()) if values}
    if len(said) == 1:
        return f"{panel.title} {next(iter(said.values()))}"
    return f"{panel.title} ({', '.join(f'{name} {value}' for name, value in said.items())})"


def value_text(value: float, is_share: bool) -> str:
    """Format a point of a curve: 0.4321 -> 0.4321, or 43.2 % for a share.

    >>> value_text(0.4321, False), value_text(1234567, False)
    ('0.4321', '1,234,567')
    """
    if is_share:
        return f"{100 * value:.3g}{THIN_SPACE}%"
    is_long = 1000 <= abs(value) < 1e12
    return (f"{value:,.0f}" if is_long else f"{value:.4g}").replace("-", MINUS)
