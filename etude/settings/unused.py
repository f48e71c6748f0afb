"""Finds changed settings that have no effect with the values of the others.

They are not an error, since a recipe may be tried with one setting changed, but they are reported before anything is computed. The readers
of a setting are declared, in a table of `Read` or by `unread` of a method's settings.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from etude.settings.configuration import flatten, to_plain_values
from etude.settings.yaml_text import as_yaml

Sections = Mapping[tuple[str, ...], str]
"""Prefixes of settings without effect, and why."""


class Read(NamedTuple):
    """Settings with this prefix are read only if another setting has one of these values."""

    prefixes: tuple[str, ...]
    setting: str
    values: Collection[Any]
    """`ANY`: all except 0, false, null and empty values."""


ANY: Collection[Any] = ("any",)
"""For `Read.values`: all values except 0, false, null and empty ones."""


def unread_by(table: Sequence[Read], values: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    """Return the prefixes of settings without effect by a table, and why; `values` are by dotted name."""
    found: dict[tuple[str, ...], str] = {}
    for prefixes, setting, read in table:
        value = values.get(setting)
        own = {*value} if isinstance(value, (list, tuple)) else {value}
        if not (bool(value) if read is ANY else own & {*read}):
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else as_yaml(value)
            found[prefixes] = f"{setting} is {shown}" if shown != "" else f"{setting} is empty"
    return found


def unread_of_search(settings: Any, also: Sequence[str] = (), more: Sections = MappingProxyType({})) -> list[str]:
    """Return the changed settings without effect for a search for answers (`etude.decoding.search`); `also` lists further settings that
    the search does not read, `more` other prefixes without effect, and why.
    """
    names = tuple(f"search.{name}" for name in sorted(settings.search.unread))
    sections = {(*also, *names): f"search.method is {settings.search.method}", **more}
    return unread_among(settings, flatten(to_plain_values(type(settings)())), sections)


def unread_in(section: str, settings: Any, chosen_by: str) -> dict[tuple[str, ...], str]:
    """Return the settings in a section that its method, the value of `chosen_by`, does not read."""
    return {tuple(f"{section}.{name}" for name in sorted(settings.unread)): f"{section}.{chosen_by} is {getattr(settings, chosen_by)}"}


def unread_among(settings: Any, defaults: Mapping[str, Any], sections: Sections) -> list[str]:
    """Return, for each group of changed settings without effect, their names and why: `judge.model: reward is verifier`.

    The first of several reasons is given.
    """
    own = flatten(to_plain_values(settings))
    changed = [name for name, value in own.items() if name in defaults and value != defaults[name]]
    found: dict[str, list[str]] = {}
    for prefixes, why in sections.items():
        told = {name for names in found.values() for name in names}
        found.setdefault(why, []).extend(name for name in changed if name.startswith(prefixes) and name not in told)
    return [f"{', '.join(names)}: {why}" for why, names in found.items() if names]
