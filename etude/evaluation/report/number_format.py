"""Formats numbers for the report: shares in percent, differences in points, and a dash for a missing value."""

import json
from math import isfinite
from typing import Any, TypeGuard

MISSING = "\u2013"
_LARGEST = 1e100
MINUS = "\u2212"
THIN_SPACE = "\u202f"
FIXED_SPACE = "\u00a0"


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is a finite number of computable size and not a bool, since files of a run may hold anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and abs(value) < _LARGEST


def number_or_none(value: Any) -> float | None:
    """Return the value if it is a number, else None."""
    return value if is_number(value) else None


def percent(value: Any) -> str:
    """Format a share: 0.4321 -> 43.2 %."""
    return f"{100 * value:.1f}{THIN_SPACE}%" if is_number(value) else MISSING


def interval(low: Any, high: Any) -> str:
    """Format an interval of shares in percent: (0.401, 0.463) -> [40.1, 46.3]."""
    return f"[{100 * low:.1f}, {100 * high:.1f}]" if is_number(low) and is_number(high) else ""


def points(value: Any) -> str:
    """Format a difference of shares in percentage points, with its sign: 0.063 -> +6.3."""
    return f"{100 * value:+.1f}".replace("-", MINUS) if is_number(value) else MISSING


def points_interval(low: Any, high: Any) -> str:
    """Format an interval of differences in points: (0.01, 0.116) -> [+1.0, +11.6]."""
    return f"[{points(low)},{FIXED_SPACE}{points(high)}]" if is_number(low) and is_number(high) else ""


def nats(value: Any) -> str:
    """Format a difference in nats, with its sign: 0.0312 -> +0.031."""
    return f"{value:+.3f}".replace("-", MINUS) if is_number(value) else MISSING


def nats_interval(low: Any, high: Any) -> str:
    """Format an interval of differences in nats: (0.011, 0.052) -> [+0.011, +0.052]."""
    return f"[{nats(low)},{FIXED_SPACE}{nats(high)}]" if is_number(low) and is_number(high) else ""


def p_value(value: Any, relation: bool = False) -> str:
    """Format a p-value: 0.0123 -> 0.012, or as below 0.001; `relation` puts "=" before it."""
    if not is_number(value):
        return f"={FIXED_SPACE}{MISSING}" if relation else MISSING
    text = f"{value:.3f}" if value >= 0.001 else f"<{FIXED_SPACE}0.001"
    return text if value < 0.001 or not relation else f"={FIXED_SPACE}{text}"


def short_p_value(value: float) -> str:
    """Format a p-value in ASCII; how far it is below 1e-6 says nothing, since no test's assumptions are as exact as that.

    >>> short_p_value(0.0213), short_p_value(2e-144)
    ('p = 0.021', 'p < 1e-6')
    """
    return "p < 1e-6" if value < 1e-6 else f"p = {value:.2g}"


def reward(value: Any) -> str:
    """Format a reward of any range: 0.0634 -> 0.063, 12.34 -> 12.3, -4.5 -> -4.500 with a minus sign."""
    return short_reward(value).replace("-", MINUS) if is_number(value) else MISSING


def reward_interval(low: Any, high: Any) -> str:
    """Format an interval of rewards: (0.011, 0.052) -> [0.011, 0.052]."""
    return f"[{reward(low)},{FIXED_SPACE}{reward(high)}]" if is_number(low) and is_number(high) else ""


def reward_change(value: Any) -> str:
    """Format a difference of rewards, with its sign."""
    return f"{'+' if value >= 0 else ''}{reward(value)}" if is_number(value) else MISSING


def reward_change_interval(low: Any, high: Any) -> str:
    """Format an interval of reward differences: (-0.011, 0.052) -> [-0.011, +0.052]."""
    return f"[{reward_change(low)},{FIXED_SPACE}{reward_change(high)}]" if is_number(low) and is_number(high) else ""


def short_reward(value: float) -> str:
    """Format a reward in ASCII, with as many digits as its size needs.

    >>> short_reward(0.0634), short_reward(12.34), short_reward(0.00004), short_reward(0.0)
    ('0.063', '12.3', '4e-05', '0.000')
    """
    size = abs(value)
    if 0 < size < 0.0005 or size >= 1e6:
        return f"{value:.2g}"
    return f"{value:.{3 if size < 9.9995 else 1 if size < 1000 else 0}f}"


def duration(seconds: float) -> str:
    """Format a time for people.

    >>> duration(42.3), duration(430), duration(9000)
    ('42 s', '7 min', '2.5 h')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def plain(value: Any) -> str:
    """Format a value of a configuration or a metric briefly."""
    if isinstance(value, float):
        return f"{value:.4g}" if isfinite(value) else MISSING
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return MISSING if value is None else str(value)
