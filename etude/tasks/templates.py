"""Fills format strings with an entry's fields: a question in the user's own words, or a demonstration."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

from etude.errors import UserError, unknown


def fill_template(argument: str, template: str, names: Mapping[str, Any]) -> str:
    """Fill a format string with the fields of an entry; the items of a list are joined by commas.

    Raises UserError, which names `argument` and lists the fields, for an unknown field or a broken format string.

    >>> fill_template("question", "Sort: {numbers}", {"numbers": ["3", "1", "2"]})
    'Sort: 3, 1, 2'
    """
    try:
        wanted = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UserError(f"{argument} {template!r} is not a format string: {error}. Write a brace twice to keep it") from error
    for field in wanted:
        if field not in names:
            raise unknown(f"field in {argument}", field, map(str, names))
    try:
        return template.format_map({name: _shown(value) for name, value in names.items()})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{argument} {template!r} cannot be filled in: {type(error).__name__}: {error}") from error


def _shown(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and not any(isinstance(item, (list, tuple, dict)) for item in value):
        return ", ".join(map(str, value))
    return value
