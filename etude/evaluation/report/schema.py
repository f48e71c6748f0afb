"""Schema of a run's JSON documents: where mappings, lists and names must be.

Other values may be anything and are checked on display.
"""

from collections.abc import Mapping
from typing import Any, Final

NAME: Final = str
"""Text, a number, or None, which is compared with other names."""
_ROW = {"suite": NAME, "model": NAME, "baselines": {}, "thought": [{}]}
RESULT: Final[Mapping[str, Any]] = {
    "tasks": {},
    "evaluation": [_ROW],
    "paired": [{"suite": NAME, "first": NAME, "second": NAME}],
    "retention": [{"model": NAME}],
    "retention_paired": [{"second": NAME, "choices": {}}],
    "changes": [{}],
}
ANSWERS: Final[Mapping[str, Any]] = {"suites": [{"suite": NAME, "row": _ROW, "items": [{"task": NAME}]}]}
PANELS_FILE: Final[Mapping[str, Any]] = {"panels": [{"title": NAME, "unit": NAME, "measures": {}}]}


def conforming(value: Any, shape: Any, where: str, odd: list[str]) -> Any:
    """Return the value without parts that violate the schema.

    A schema is a mapping from some names to schemas, a list of one schema, or `NAME`; None is allowed for each. The paths of removed parts,
    below `where`, are added to `odd`.
    """
    if isinstance(shape, Mapping):
        if isinstance(value, dict):
            found = {
                name: conforming(inner, shape[name], f"{where}.{name}", odd) if name in shape else inner for name, inner in value.items()
            }
            return {name: inner for name, inner in found.items() if inner is not None or value[name] is None}
    elif isinstance(shape, list):
        if isinstance(value, list):
            found_all = [conforming(inner, shape[0], f"{where}[{place}]", odd) for place, inner in enumerate(value)]
            return [inner for inner in found_all if inner is not None]
    elif isinstance(value, str | int | float):
        return value
    if value is not None:
        odd.append(where.removeprefix("."))
    return None


def describe_rejected(places: list[str]) -> str:
    """Describe which values were removed."""
    others = f" and {len(places) - 1} other value{'s' if len(places) > 2 else ''}" if len(places) > 1 else ""
    return f"{places[0]}{others} {'are' if others else 'is'} of another type than a run writes and left out"
