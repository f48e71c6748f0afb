"""Settings that were changed and that nothing reads as the others are.

No mistake, since a recipe may be tried either way with one setting changed, but a person should know: told before anything is computed.
What reads a setting is declared, in a table of `Read` or by the `unread` of the settings of a method.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from etude.settings.configuration import flatten, to_plain_values
from etude.settings.yaml_text import as_yaml

Sections = Mapping[tuple[str, ...], str]
"""Prefixes of names that nothing reads, and why."""


class Read(NamedTuple):
    """Settings whose names begin so are read where another setting has one of these values."""

    prefixes: tuple[str, ...]
    setting: str
    values: Collection[Any]
    """`ANY`: any but 0, false, null and empty ones."""


ANY: Collection[Any] = ("any",)
"""Of `Read.values`: whatever is not 0, false, null or empty."""


def unread_by(table: Sequence[Read], values: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Return the prefixes that a table says nothing reads, of settings by dotted name, and why."""
    found: dict[tuple[str, ...], str] = {}
    for prefixes, setting, read in table:
        value = values.get(setting)
        own = {*value} if isinstance(value, (list, tuple)) else {value}
        if not (bool(value) if read is ANY else own & {*read}):
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else as_yaml(value)
            found[prefixes] = f"{setting} is {shown}" if shown != "" else f"{setting} is empty"
    return found


def unread_of_search(settings: Any, also: Sequence[str] = (), more: Sections = MappingProxyType({})) -> list[str]:
    """Return what settings with a search for answers (`etude.recipes.answering`) do not read; `also` are more that it does not read,
    `more` what else is not read, and why.
    """
    names = tuple(f"search.{name}" for name in sorted(settings.search.unread))
    sections = {(*also, *names): f"search.method is {settings.search.method}", **more}
    return unread_among(settings, flatten(to_plain_values(type(settings)())), sections)


def unread_in(section: str, settings: Any, chosen_by: str) -> dict[tuple[str, ...], str]:
    """Return the settings in a section that its method, the value of `chosen_by`, does not read."""
    return {tuple(f"{section}.{name}" for name in sorted(settings.unread)): f"{section}.{chosen_by} is {getattr(settings, chosen_by)}"}


def unread_among(settings: Any, defaults: Mapping[str, Any], sections: Sections) -> list[str]:
    """Return for each group of changed settings that nothing reads their names and why: `judge.model: reward is verifier`.

    Of several reasons the first one is told.
    """
    own = flatten(to_plain_values(settings))
    changed = [name for name, value in own.items() if name in defaults and value != defaults[name]]
    found: dict[str, list[str]] = {}
    for prefixes, why in sections.items():
        told = {name for names in found.values() for name in names}
        found.setdefault(why, []).extend(name for name in changed if name.startswith(prefixes) and name not in told)
    return [f"{', '.join(names)}: {why}" for why, names in found.items() if names]
