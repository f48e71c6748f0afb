"""Optional sections of a configuration: parts that have settings only if they are listed.

A field `callbacks: dict[str, Any]` with `field(metadata={"sections": ...})` holds settings for every listed part, by its name:

    callbacks:
      gate: {every: 10}                          a part of the table with settings
      collapse:                                  a part with its defaults (the same as `{}` or `true`)
      mine: {class: my_file.py:Mine, rate: 2}    a user's own part (`mine: my_file.py:Mine` with its defaults)
      replay: false                              removes a part that a recipe lists

On the command line `--callbacks.gate.every 10` adds the part, `--callbacks.gate false` removes it, and `--callbacks.mine FILE.py:CLASS` (or
`--callbacks.mine.class`) adds a user's own. `--gate.every` is the short name; `--callbacks.gate '{every: 10}'` sets all of its settings.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import Field, dataclass, fields
from difflib import get_close_matches
from typing import Any

import yaml

from etude.errors import UserError, unknown
from etude.settings.yaml_text import read_yaml

CLASS = "class"
"""The key of a user's own class, below a part's name in a file."""


@dataclass(frozen=True)
class Sections:
    """The allowed parts of a field of optional sections."""

    names: Collection[str]
    """The parts of the table, in the order of their calls."""
    settings_class: Callable[[str, str | None], type[Any]]
    """The dataclass of a part's settings, from its name and, for a user's own part, its class."""
    classes_field: str
    """The field with the classes of users' own parts by name."""
    noun: str = "callback"
    """The name of a part in errors."""


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
    """Return the users' own classes in nested or dotted values, by the names of the parts.

    Raises UserError for a class with the name of a part of the table.
    """
    found: dict[str, str] = {}
    for name, sections in sections_of(kind).items():
        told = values.get(sections.classes_field)
        found |= told if isinstance(told, Mapping) else {}
        parts = values.get(name)
        flat = {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}
        for part, value in {**(parts if isinstance(parts, Mapping) else {}), **flat}.items():
            if isinstance(value, str) and value.startswith("{"):
                value = mapping_in(value)
            if isinstance(value, Mapping):
                value = value.get(CLASS)
            part = part.removesuffix(f".{CLASS}")
            if isinstance(value, str) and ":" in value and "." not in part:
                found[part] = value
        if taken := [part for part in found if part in sections.names]:
            raise UserError(f"{name}.{taken[0]} is a {sections.noun} that ships: give {found[taken[0]]} another name")
    return found


def mapping_in(text: str) -> Mapping[str, Any] | None:
    """Parse the settings of a part from one text, `{every: 10}`; returns None for another text."""
    with contextlib.suppress(yaml.YAMLError):
        found = read_yaml(text)
        return found if isinstance(found, Mapping) else None
    return None


def unknown_part(name: str, known: Collection[str], kind: Any, dashes: str) -> UserError | None:
    """Return the error for a setting of an unknown part, by its long or short name; None for another setting."""
    field_name, _, rest = name.partition(".")
    part = rest.partition(".")[0]
    for where, sections in sections_of(kind).items() if dashes else ():
        near = get_close_matches(field_name, sections.names, n=1, cutoff=0.8)
        if near and near[0] != field_name and f"{where}.{near[0]}.{rest}" in known:
            return UserError(f"unknown setting {dashes}{name}: did you mean {dashes}{near[0]}.{rest}?")
    if not part or field_name not in (fields := sections_of(kind)) or f"{field_name}.{part}" in known:
        return None
    own = f"--{field_name}.{part} FILE.py:CLASS" if dashes else f"{field_name}: {{{part}: {{{CLASS}: FILE.py:CLASS}}}}"
    noun = fields[field_name].noun
    return UserError(f"{unknown(noun, part, fields[field_name].names)}. One of your own names its class, {own}")


def listed(
    each: "Field[Any]", told: Mapping[str, Any], default: Mapping[str, Any], own: Mapping[str, str], make: Callable[..., Any]
) -> dict[str, Any]:
    """Build the listed parts in the order of the table, with their settings from the given values and defaults."""
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
    """Return the values of a file without those of parts that an override removes."""
    out = [name for name, value in given.items() if value in (False, None) and name.partition(".")[0] in sections_of(kind)]
    removed = tuple(f"{name}." for name in out if name.count(".") == 1)
    return {name: value for name, value in told.items() if not (removed and name.startswith(removed))}


def check_switches(told: Mapping[str, Any], own: Mapping[str, str], kind: Any) -> None:
    """Raise UserError for a part that is switched by a value other than true, false, null or, for users' `own`, its class."""
    for field_name, sections in sections_of(kind).items():
        for name in (*sections.names, *own):
            value = told.get(f"{field_name}.{name}")
            if isinstance(value, str) and value != own.get(name):
                raise UserError(f"{field_name}.{name}: expected true or false, or its settings, got {value}")
