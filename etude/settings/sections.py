"""Optional sections of a configuration: settings of parts that are listed, or left out and then have no settings at all.

A field `callbacks: dict[str, Any]` with `field(metadata={"sections": ...})` holds settings for every part that is listed, by its name:

    callbacks:
      gate: {every: 10}                          a part of the table with settings
      collapse:                                  one with its defaults (`{}` or `true` say the same)
      mine: {class: my_file.py:Mine, rate: 2}    a user's own (`mine: my_file.py:Mine` with its defaults)
      replay: false                              one that a recipe lists, taken out

On the command line `--callbacks.gate.every 10` adds the part, `--callbacks.gate false` takes it out, and `--callbacks.mine FILE.py:CLASS`
adds a user's own. `--gate.every` is short for it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from etude.errors import UserError

CLASS = "class"
"""Below a part's name in a file: a user's own class."""


@dataclass(frozen=True)
class Sections:
    """What a field of optional sections may hold."""

    names: Collection[str]
    """The parts of the table, in the order of their calls."""
    settings_class: Callable[[str, str | None], type[Any]]
    """The dataclass of a part's settings, from its name and, of a user's own part, its class."""
    classes_field: str
    """The field beside that holds the classes of users' own parts by name."""


def sections_of(kind: Any) -> dict[str, Sections]:
    """Return the fields of optional sections of a configuration class."""
    return {each.name: each.metadata["sections"] for each in fields(kind) if "sections" in each.metadata}


def hints_of(each: "Field[Any]", own: Mapping[str, str], settings_of: Callable[[Any, str], Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings of a field of optional sections by dotted name, with their types; `own` has users' classes by name."""
    sections: Sections = each.metadata["sections"]
    found: dict[str, Any] = {}
    for name in (*sections.names, *own):
        found[f"{each.name}.{name}"] = bool | str | None
        found |= settings_of(sections.settings_class(name, own.get(name)), f"{each.name}.{name}.")
    return found


def own_classes(kind: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Return the users' own classes that nested or dotted values name, by the names of the parts."""
    found: dict[str, str] = {}
    for name, sections in sections_of(kind).items():
        told = values.get(sections.classes_field)
        found |= told if isinstance(told, Mapping) else {}
        parts = values.get(name)
        flat = {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}
        for part, value in {**(parts if isinstance(parts, Mapping) else {}), **flat}.items():
            if isinstance(value, Mapping):
                value = value.get(CLASS)
            part = part.removesuffix(f".{CLASS}")
            if isinstance(value, str) and ":" in value and "." not in part:
                found[part] = value
    return found


def listed(
    each: "Field[Any]", told: Mapping[str, Any], default: Mapping[str, Any], own: Mapping[str, str], make: Callable[..., Any]
) -> dict[str, Any]:
    """Return the parts that are listed, with their settings made of what is told and of their defaults, in the order of the table."""
    sections: Sections = each.metadata["sections"]
    found = {}
    for name in (*sections.names, *own):
        prefix = f"{each.name}.{name}."
        is_told = any(key.startswith(prefix) for key in told)
        switch = told.get(prefix[:-1], is_told or name in default)
        if switch is not False and switch is not None:
            found[name] = make(sections.settings_class(name, own.get(name)), told, default.get(name), prefix)
    return found


def without_removed(told: Mapping[str, Any], given: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return the values of a file without those of parts that an override takes out."""
    out = [name for name, value in given.items() if value in (False, None) and name.partition(".")[0] in sections_of(kind)]
    removed = tuple(f"{name}." for name in out if name.count(".") == 1)
    return {name: value for name, value in told.items() if not (removed and name.startswith(removed))}


def check_switches(told: Mapping[str, Any], kind: Any) -> None:
    """Raise UserError for a part of the table that is switched by anything but true, false or null."""
    for field_name, sections in sections_of(kind).items():
        for name in sections.names:
            value = told.get(f"{field_name}.{name}")
            if isinstance(value, str):
                raise UserError(f"{field_name}.{name}: expected true or false, or its settings, got {value}")
