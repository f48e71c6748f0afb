"""Chart axes: the scale from values to pixels, round ticks and their labels, and the path of a curve."""

from collections.abc import Callable
from math import ceil, floor, log10

from etude.evaluation.report.curves import Points
from etude.evaluation.report.number_format import MINUS, THIN_SPACE

LEFT, RIGHT, TOP, BOTTOM = 46, 350, 10, 172
"""The edges of a chart's plot area, in the template's 360 x 210 pixels."""
_SMALLEST = 1e-100
"""The span below which all values count as equal."""


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the map from [low, high] to [start, end], rounded to a tenth of a pixel; the middle if low = high."""
    span = high - low
    return lambda value: round(start + (end - start) * ((value - low) / span if span else 0.5), 1)


def ticks_of(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Choose three to seven round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high], with 0 if it is near."""
    if 0 < low < 0.6 * high:
        low = 0.0
    if high - low <= max(_SMALLEST, 1e-9 * max(abs(low), abs(high))):  # equal up to rounding: no ticks fit between them
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    step = max(1.0, step) if whole else step
    return [i * step for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def tick_label(value: float, step: float, is_share: bool) -> str:
    """Format a tick with the number of digits required by ticks that are `step` apart."""
    if is_share:
        return f"{100 * value:.0f}{THIN_SPACE}%" if step >= 0.01 else f"{100 * value:g}{THIN_SPACE}%"
    if step >= 1000:
        return f"{value / 1000:,.0f}k"
    if 0 < step < 1e-4:
        return f"{value:.3g}".replace("-", MINUS)
    return f"{value:,.{max(0, -floor(log10(step) + 1e-9))}f}".replace("-", MINUS)


def path_data(points: Points, across: Callable[[float], float], up: Callable[[float], float]) -> str:
    """Return SVG path data; a missing value breaks the line, an isolated point is a dot."""
    path, is_open = [], False
    for i, (step, value) in enumerate(points):
        if value is None:
            is_open = False
            continue
        path.append(f"{'L' if is_open else 'M'}{across(step):g} {up(value):g}")
        if not is_open and (i + 1 == len(points) or points[i + 1][1] is None):
            path.append("h0")
        is_open = True
    return "".join(path)
