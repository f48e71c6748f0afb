"""Builds typed settings from a configuration's name or YAML file and `--key value` overrides; every error is one sentence.

The dataclasses beside the code are the only list of settings: their fields are the options, and the text below a field is its help
(`etude.settings.help`). `etude.settings.values` reads values; `etude.settings.spellings` finds the nearest setting for an unknown name.
Nothing here imports torch.
"""

import contextlib
import copy
import functools
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml

from etude.errors import UserError, unknown, value_hint
from etude.renamed import OPTIONS, REMOVED, renamed_setting
from etude.settings.sections import (
    CLASS,
    check_switches,
    hints_of,
    listed,
    mapping_in,
    own_classes,
    sections_of,
    unknown_part,
    without_removed,
)
from etude.settings.spellings import nearest_setting
from etude.settings.values import WrongValue, from_text, to_type
from etude.settings.yaml_text import problem_of, read_yaml

Configuration = TypeVar("Configuration")
_SHIPPED = Path(__file__).parents[1] / "configs"


@functools.cache
def shipped_configurations(command: str) -> Mapping[str, Path]:
    """Return the shipped configurations of a command, by name; read once."""
    return {path.stem: path for path in shipped() if command_of(path) == command}


def shipped() -> list[Path]:
    """Return the files of all shipped configurations, by their commands."""
    return sorted(_SHIPPED.glob("*.yaml"), key=lambda path: (str(command_of(path)), path.stem))


def find_configuration(command: str, name: str) -> Path:
    """Find a YAML file by its path, or by the name of a shipped configuration.

    Raises UserError if there is neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"configuration {name!r}: no such file")
        return path
    known = shipped_configurations(command)
    if name not in known:
        raise unknown(f"{command} configuration", name, known)
    return known[name]


def command_of(path: Path) -> str | None:
    """Return the command named in a YAML file, or None if there is none or the file cannot be read."""
    try:
        values = read_yaml(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None
    return values.get("command") if isinstance(values, dict) else None


Adjust = Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]]


def about(path: Path) -> str:
    """Return the first sentence of the comment that a configuration begins with."""
    lines = path.read_text(encoding="utf8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines))
    return re.split(r"(?<=[.?!])\s", comment)[0]


def parse(
    kind: type[Configuration],
    path: Path | None,
    overrides: Sequence[str],
    *,
    adjust: Adjust | None = None,
    short: Mapping[str, str] | None = None,
) -> Configuration:
    """Build a `kind` from a YAML file and `--key value` overrides.

    A list setting takes several values, `--evaluation.path A B`. `adjust` gets the values of the file and the overrides, both by dotted
    name, and returns the values to use. `short` maps short names to settings, `--name value`. Raises UserError for an unknown name or a
    wrong type.
    """
    own = _classes_in(kind, path) | own_classes(kind, _options_of(overrides))
    known = settings_of(kind, own)
    given = _parse_overrides(overrides, kind, known, _short_names(kind, known, own) | dict(short or {}))
    try:
        values = _file_values(kind, path, own) if path is not None else {}
        values = adjust(values, given) if adjust else values
        read = {name: _convert(name, known[name], text, "--") for name, text in given.items()}
        told = without_removed({name: _convert(name, known[name], value, "") for name, value in values.items()}, read, kind) | read
        for name, sections in sections_of(kind).items():
            told[sections.classes_field] = {part: own[part] for part in own if told.get(f"{name}.{part}") is not False}
        check_switches(told, own, kind)
        return _build(kind, told, own=own)
    except UserError as error:
        raise UserError(_expand_names(str(error), list(known))) from None


def _convert(name: str, hint: Any, value: Any, where: str) -> Any:
    """Convert a value to its type; `where` precedes the name in errors: `--`, or the file."""
    try:
        return from_text(hint, value) if isinstance(value, str) else to_type(hint, value)
    except WrongValue as error:
        raise UserError(f"{where}{name}: expected {error}, got {_argument(value)}{_hint(name, value)}") from None


def _hint(name: str, value: Any) -> str:
    hint = value_hint(name, str(value))
    return f":{hint}" if hint else ""


def _short_names(kind: Any, known: Collection[str], own: Collection[str]) -> dict[str, str]:
    """Map unambiguous short names to settings: those of optional sections without the field's name, such as `gate.every`, and the classes
    of users' `own` parts.
    """
    starts = tuple(f"{name}." for name in sections_of(kind))
    short = {name.partition(".")[2]: name for name in known if starts and name.startswith(starts)}
    short |= {f"{start}{part}.{CLASS}": f"{start}{part}" for start in starts for part in own}
    return {name: full for name, full in short.items() if name not in known and not _section(name, known)}


def _options_of(overrides: Sequence[str]) -> dict[str, str]:
    """Collect `--name value` and `--name=value` as text, for values that are needed before the settings are parsed."""
    words = [word.removeprefix("--").partition("=") for word in overrides]
    following = [*words, ("", "", "")][1:]
    return {name: value if equals else after for (name, equals, value), (after, _, _) in zip(words, following, strict=True)}


def _classes_in(kind: Any, path: Path | None) -> dict[str, str]:
    """Return the users' own classes of optional sections named in a file; errors are reported later."""
    if path is None or not sections_of(kind):
        return {}
    with contextlib.suppress(yaml.YAMLError, OSError, UnicodeDecodeError):
        values = read_yaml(path.read_text(encoding="utf8"))
        return own_classes(kind, values) if isinstance(values, dict) else {}
    return {}


def _build(kind: Any, values: Mapping[str, Any], default: Any = None, prefix: str = "", own: Mapping[str, str] | None = None) -> Any:
    """Build an instance of a settings class from these values, and from `default` for the others."""
    hints, chosen = get_type_hints(kind), {}
    for field in fields(kind):
        name = prefix + field.name
        usual = default if default is None else getattr(default, field.name)
        if default is None and (field.default_factory is not MISSING or field.default is not MISSING):
            usual = field.default_factory() if field.default_factory is not MISSING else field.default
        if is_dataclass(hints[field.name]):
            chosen[field.name] = _build(hints[field.name], values, usual, f"{name}.")
        elif "sections" in field.metadata:
            chosen[field.name] = listed(field, values, usual or {}, own or {}, _build)
        elif name in values:
            chosen[field.name] = values[name]
        elif default is None and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{name} must be set: it has no default")
    return kind(**chosen) if default is None else replace(default, **chosen)


def settings_of(kind: Any, own: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Return a configuration class's settings by dotted name, with their types, in order; `own`: users' classes of optional sections."""
    if not own:
        return _settings_once(kind)
    more = {each.name: hints_of(each, own, _settings_once) for each in fields(kind) if "sections" in each.metadata}
    return {**_settings_once(kind), **{name: hint for found in more.values() for name, hint in found.items()}}


@functools.cache
def _settings_once(kind: Any, prefix: str = "") -> Mapping[str, Any]:
    hints, found = get_type_hints(kind), dict[str, Any]()
    for field in fields(kind):
        hint = hints[field.name]
        if "sections" in field.metadata:
            found |= hints_of(field, {}, _settings_once)
        else:
            found |= _settings_once(hint, f"{prefix}{field.name}.") if is_dataclass(hint) else {prefix + field.name: hint}  # type: ignore[arg-type]
    return found


def lists_of(kind: type[Any]) -> set[str]:
    """Return the dotted names of the settings that are lists."""
    return {name for name, hint in settings_of(kind).items() if get_origin(hint) is list}


def to_plain_values(configuration: Any) -> dict[str, Any]:
    """Convert a configuration to plain nested values, for YAML and comparison."""
    values: dict[str, Any] = plain(configuration)
    return values


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values to dotted names: `{"inner": {"x": 1}}` becomes `{"inner.x": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def recipe_values(path: Path, parse: Callable[[Path, Sequence[str]], Any]) -> dict[str, Any]:
    """Return the values of a recipe by dotted name; {} for one that needs more settings, such as tasks."""
    try:
        return flatten(to_plain_values(parse(path, [])))
    except UserError:
        return {}


def changes(before: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return which values differ from those `before`, given by dotted name: `{"steps": "5 (30)"}`, with the old one in brackets."""
    now = flatten(values)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return {name.removeprefix("callbacks."): f"{_argument(now.get(name))} ({_argument(before.get(name))})" for name in names}


def _parse_overrides(overrides: Sequence[str], kind: type[Any], known: Mapping[str, Any], short: Mapping[str, str]) -> dict[str, str]:
    """Parse `--key value`, `--key=value` and, for lists, `--key value value` into texts by setting."""
    given: dict[str, str] = {}
    lists = lists_of(kind)
    queue = list(overrides)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--"):
            raise UserError(f"{word!r} found where a --key was expected: settings are given as --key value")
        name = option.removeprefix("--")
        name = short.get(name, name)
        if name not in known:
            raise _unknown_setting(name, known, kind, "--", short)
        values = [value] if equals else []
        while not equals and queue and not queue[0].startswith("--") and (not values or name in lists):
            values.append(queue.pop(0))
        if not values:
            raise UserError(f"{option} needs a value")
        if values[0].startswith("{") and _section(name, known) and (inner := mapping_in(values[0])) is not None:
            queue[:0] = _words_of(name, inner, known)
            continue
        if name not in lists and name in given:
            raise UserError(f"{option.partition('=')[0]} is given twice: {given[name]} and {values[0]}; give it once")
        before = json.loads(given.get(name, "[]")) if name in lists else []
        given[name] = json.dumps([*before, *_listed(values)]) if name in lists else values[0]
    return given


def _words_of(name: str, inner: Mapping[str, Any], known: Collection[str]) -> list[str]:
    """Convert an optional section that is given as one mapping to command-line words."""
    found = leaves({key: value for key, value in inner.items() if key != CLASS}, known, f"{name}.")
    switch = [f"--{name}={inner[CLASS]}"] if CLASS in inner else [f"--{name}=true"] if not found else []
    return [*switch, *(f"--{key}={_argument(value)}" for key, value in found)]


def _listed(values: list[str]) -> list[Any]:
    """Parse the items of a list setting: separate words, one JSON list, or one YAML list of mappings."""
    if len(values) == 1 and values[0].startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(values[0])
        with contextlib.suppress(yaml.YAMLError):
            found = read_yaml(values[0])
            if isinstance(found, list) and any(isinstance(item, dict) for item in found):  # else it may be a name in brackets
                return found
    return values


def _file_values(kind: type[Any], path: Path, own: Mapping[str, str]) -> dict[str, Any]:
    """Return a YAML file's values by dotted name, each of its type; errors name the file."""
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text: {error}") from None
    return copy.deepcopy(_values_once(kind, path, text, tuple(own.items())))  # type: ignore[arg-type]


@functools.cache
def _values_once(kind: type[Any], path: Path, text: str, own: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return a file's values by dotted name; cached, since the check of their types takes a tenth of a second."""
    known, lists = settings_of(kind, dict(own)), lists_of(kind)
    try:
        values = read_yaml(text)
    except yaml.YAMLError as error:
        problem, line = problem_of(error)
        raise UserError(f"{path}{f':{line}' if line else ''}: not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `key: value` lines, got {type(values).__name__}")
    values.pop("command", None)
    flat: dict[str, Any] = {}
    for name, value in leaves(values, known):
        if name not in known and _section(name, known):
            raise UserError(f"{path}: {name}: expected settings as `key: value` lines, got {value!r}")
        if name not in known:
            raise _unknown_setting(name, known, kind, f"{path}: ")
        flat[name] = _convert(name, known[name], [value] if name in lists and isinstance(value, str) else value, f"{path}: ")
    return flat


def _section(name: str, known: Collection[str]) -> list[str]:
    """Return the settings below a name; none if it is a setting itself."""
    return [setting for setting in known if setting.startswith(f"{name}.")]


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value, default=str)


def leaves(values: Mapping[str, Any], known: Collection[str], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten values to dotted names; only mappings with settings below them are flattened, and empty sections are skipped."""
    found = []
    for name, value in values.items():
        full_name = f"{prefix}{name}"
        is_section, is_part = bool(_section(full_name, known)), full_name in known
        if is_section and isinstance(value, Mapping):
            inner = {key: each for key, each in value.items() if not (is_part and key == CLASS)}
            found += leaves(inner, known, full_name + ".")
            found += [(full_name, True)] if is_part and not inner else []
        elif is_part and is_section:
            found.append((full_name, True if value is None or (isinstance(value, str) and ":" in value) else value))
        elif not (is_section and value is None):
            found.append((full_name, value))
    return found


def _expand_names(text: str, known: Sequence[str]) -> str:
    """Expand setting names in an error: `search.width` of a settings class is `rollout.search.width` in the command."""

    def full(found: re.Match[str]) -> str:
        ends = [setting for setting in known if setting.endswith(f".{found[0]}")]
        return ends[0] if len(ends) == 1 and found[0] not in known else found[0]

    return re.sub(r"(?<![\w./])[a-z_]+(?:\.[a-z_]+)+(?![\w/])", full, text)


def _unknown_setting(name: str, known: Mapping[str, Any], kind: Any, where: str, short: Mapping[str, str] | None = None) -> UserError:
    """Return the error for an unknown setting; `where` is `--`, or the file."""
    dashes, start = ("--", "") if where == "--" else ("", where)
    if inner := _section(name, known):
        return UserError(f"{start}{dashes}{name} is a section: set {dashes}{inner[0]} and the like")
    if no_part := unknown_part(name, known, kind, dashes):
        return UserError(f"{start}{no_part}")
    owner = next((setting for setting in known if name.replace("-", "_").startswith(f"{setting}.")), None)
    if owner is not None and not _section(owner, known):
        own = name.replace("-", "_").removeprefix(f"{owner}.")
        return UserError(f"{start}unknown setting {dashes}{name}: {owner} is one value, {dashes}{owner} '{{\"{own}\": ...}}'")
    if dashes and OPTIONS.get(name) in (short or {}):
        return UserError(f"unknown setting --{name}: it is --{OPTIONS[name]} now")
    now = renamed_setting(name.replace("-", "_"))
    if now is not None and (ours := next((each for each in (now, f"callbacks.{now}") if each in known), None)):
        return UserError(f"{start}unknown setting {dashes}{name}: it is {dashes}{ours.removeprefix('callbacks.') if dashes else ours} now")
    if now is not None and (inner := _section(now, known)):
        return UserError(f"{start}unknown setting {dashes}{name}: it is {dashes}{now} now, set {dashes}{inner[0]} and the like")
    if (now or name.replace("-", "_")) in REMOVED:
        return UserError(f"{start}unknown setting {dashes}{name}: it was removed, leave it out")
    near = nearest_setting(name, list(known), short or {})
    if dashes and near and not name.startswith("callbacks.") and near.removeprefix("callbacks.") in (short or {}):
        near = near.removeprefix("callbacks.")
    hint = f"did you mean {dashes}{near}?" if near else "see --help for all settings"
    return UserError(f"{start}unknown setting {dashes}{name}: {hint}")


def plain(value: Any) -> Any:
    """Convert values of settings to YAML's types: mappings, lists, text and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
