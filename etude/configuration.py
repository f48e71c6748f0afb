"""From a configuration's name or YAML file and `--key value` overrides to typed dataclasses, and every mistake in one sentence.

The dataclasses beside the code are the only list of settings: jsonargparse makes options and help from their fields and docstrings.
"""

import contextlib
import copy
import functools
import io
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_loader, set_parsing_settings

from etude.errors import UserError, unknown
from etude.yaml_text import problem_of, read_yaml

Configuration = TypeVar("Configuration")

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def _value_of(text: str) -> Any:
    """What the text of an option says: YAML, but that `{a, b}` and `a:` are texts."""
    value = read_yaml(text) if text.strip() else text
    return text if isinstance(value, dict) and value and all(inner is None for inner in value.values()) else value


set_loader("etude", _value_of, exceptions=(yaml.YAMLError,))

_SHIPPED = Path(__file__).parent / "configs"


@functools.cache
def shipped(command: str) -> Mapping[str, Path]:
    """The configurations that ship for a command, by name; read once."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml")) if command_of(path) == command}


def find_configuration(command: str, name: str) -> Path:
    """A YAML file by path, or by the name of a shipped configuration."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"configuration {name!r}: no such file")
        return path
    known = shipped(command)
    if name not in known:
        raise unknown(f"{command} configuration", name, known)
    return known[name]


def command_of(path: Path) -> str | None:
    """What a YAML file says it is for, if it says so and can be read."""
    try:
        values = read_yaml(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError):
        return None
    return values.get("command") if isinstance(values, dict) else None


Adjust = Callable[[Mapping[str, Any], Mapping[str, str]], dict[str, Any]]


def parse(
    kind: type[Configuration],
    path: Path | None,
    overrides: Sequence[str],
    *,
    adjust: Adjust | None = None,
    short: Mapping[str, str] | None = None,
) -> Configuration:
    """A `kind` from a YAML file and `--key value` overrides; raises UserError for anything unknown or of the wrong type.

    A setting that is a list takes several values, `--evaluation.path A B`. `adjust` gets the file's values and the overrides, both by
    dotted name, and gives the values to go on with. `short` has other names for settings, `--name value`.
    """
    parser = parser_for(kind)
    given = _given(overrides, lists_of(kind), short or {})
    try:
        values = _file_values(kind, path) if path is not None else {}
        parser.set_defaults(adjust(values, given) if adjust else values)
        made = parser.instantiate_classes(_parsed(parser, given))
    except (ArgumentError, TypeError, ValueError) as error:
        raise _sentence(error, parser, "--") from None
    return kind(**{field.name: made[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def parser_for(kind: type[Any]) -> ArgumentParser:
    """The options of a configuration class, in a parser of the caller's own."""
    return copy.deepcopy(_parser_once(kind))  # type: ignore[arg-type]


@functools.cache
def _parser_once(kind: type[Any]) -> ArgumentParser:
    """Reading every docstring takes longer than parsing, so it is done once for a class; a copy costs next to nothing."""
    parser = ArgumentParser(exit_on_error=False, default_env=False, allow_abbrev=False, parser_mode="etude")
    parser.add_class_arguments(kind)
    return parser


def help_of(kind: type[Any]) -> str:
    """Every setting of a configuration class with what its docstring says."""
    text = parser_for(kind).format_help()
    text = re.sub(r"  --\S+ CONFIG\s+Path to a configuration file\.\n", "", text[text.find("options:") :])
    text = re.sub(r"--(\S+) \[ITEM,\.\.\.\], --\1\+ \[ITEM,\.\.\.\]", r"--\1 ITEM [ITEM ...]", text)
    return text.replace("[ITEM,...]", "[ITEM, ITEM]")


def arguments_from(overrides: Mapping[str, Any]) -> list[str]:
    """Python values as the command line would give them: `{"explore.num_samples": 4}` becomes `--explore.num_samples=4`."""
    return [f"--{name}={_argument(value)}" for name, value in overrides.items()]


def lists_of(kind: type[Any], prefix: str = "") -> set[str]:
    """Dotted names of the settings that are lists."""
    found = set()
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            found |= lists_of(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        elif get_origin(hint) is list:
            found.add(prefix + name)
    return found


def resolved(configuration: Any) -> dict[str, Any]:
    """Plain nested values, ready for YAML and for comparison."""
    return _plain(asdict(configuration))


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name: `{"inner": {"x": 1}}` becomes `{"inner.x": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _given(overrides: Sequence[str], lists: Collection[str], short: Mapping[str, str]) -> dict[str, str]:
    """`--key value`, `--key=value` and, for lists, `--key value value` by dotted name."""
    given: dict[str, str] = {}
    queue = list(overrides)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=")
        if not option.startswith("--"):
            raise UserError(f"{word!r} stands where a --key was expected: settings are given as --key value")
        name = option.removeprefix("--")
        name = short.get(name, name)
        values = [value] if equals else []
        while not equals and queue and not queue[0].startswith("--") and (not values or name in lists):
            values.append(queue.pop(0))
        if not values:
            raise UserError(f"{option} needs a value")
        if name not in lists and name in given:
            raise UserError(f"{option.partition('=')[0]} is given twice: {given[name]} and {values[0]}; give it once")
        before = json.loads(given.get(name, "[]")) if name in lists else []
        given[name] = json.dumps([*before, *_listed(values)]) if name in lists else values[0]
    return given


def _listed(values: list[str]) -> list[Any]:
    """The items of a list setting: as they stand, or the one JSON list, or YAML list of mappings, that they are written as."""
    if len(values) == 1 and values[0].startswith("["):
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(values[0])
        with contextlib.suppress(yaml.YAMLError):
            found = read_yaml(values[0])
            if isinstance(found, list) and any(isinstance(item, dict) for item in found):  # else it may be a name in brackets
                return found
    return values


def _parsed(parser: ArgumentParser, given: Mapping[str, str]) -> Any:
    known = _settings(parser)
    for name in given:
        if name not in known:
            raise _unknown_setting(name, known, "--")
        if inner := _section(name, known):
            raise UserError(f"--{name} is a section: set --{inner[0]} and the like")
    with contextlib.redirect_stderr(io.StringIO()):
        made = parser.parse_args([f"--{name}={value}" for name, value in given.items()])
    for name, value in given.items():
        if _CLOCK.fullmatch(value) and isinstance(made.get(name), (int, float)):  # which the parser takes for base 60
            raise UserError(f"{name}: expected a number, got {value}")
    return made


def _file_values(kind: type[Any], path: Path) -> dict[str, Any]:
    """A YAML file's values by dotted name, each of its type; mistakes name the file."""
    try:
        text = path.read_text(encoding="utf8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text: {error}") from None
    return copy.deepcopy(_values_once(kind, path, text))  # type: ignore[arg-type]


@functools.cache
def _values_once(kind: type[Any], path: Path, text: str) -> dict[str, Any]:
    """Whether each value is of its type takes a tenth of a second, and is the same for the same text."""
    parser, lists = parser_for(kind), lists_of(kind)
    try:
        values = read_yaml(text)
    except yaml.YAMLError as error:
        problem, line = problem_of(error)
        raise UserError(f"{path}{f':{line}' if line else ''}: not valid YAML: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `key: value` lines, got {type(values).__name__}")
    values.pop("command", None)
    known = _settings(parser)
    flat: dict[str, Any] = {}
    for name, value in _leaves(values, known):
        if name not in known:
            raise _unknown_setting(name, known, f"{path}: ")
        if _section(name, known):
            raise UserError(f"{path}: {name}: expected settings as `key: value` lines, got {value!r}")
        flat[name] = [value] if name in lists and isinstance(value, str) else value
    try:
        _parsed(parser, {name: _argument(value) for name, value in flat.items()})
    except (ArgumentError, TypeError, ValueError) as error:
        if not _MISSING.search(str(error)):  # the command line may give it
            raise _sentence(error, parser, f"{path}: ") from None
    return flat


def _section(name: str, known: Sequence[str]) -> list[str]:
    """The settings below a name; none where it is a setting itself."""
    return [setting for setting in known if setting.startswith(f"{name}.")]


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value, default=str)


def _settings(parser: ArgumentParser) -> list[str]:
    return [action.dest for action in parser._actions if action.dest != "help"]


def _leaves(values: dict[str, Any], known: Sequence[str], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values; a mapping is walked into only where settings live below it, and an empty section says nothing."""
    found = []
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        is_section = bool(_section(dotted, known))
        if is_section and isinstance(value, dict):
            found += _leaves(value, known, dotted + ".")
        elif not (is_section and value is None):
            found.append((dotted, value))
    return found


_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?")
_MISSING = re.compile(r"arguments are required: (.*)")
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping, such as '{name: value}'",
    "str": "text",
}


def _sentence(error: Exception, parser: ArgumentParser, where: str) -> UserError:
    """jsonargparse's many lines as one sentence; `where` is `--`, or the file."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return UserError(f"{where.removeprefix('--')}{_in_full(str(cause), _settings(parser))}")
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    if found := _MISSING.search(text):
        return UserError(f"{found[1]} must be set: it has no default")
    if found := re.search(r'[Kk]ey "([\w.]+)"', text):
        got = re.search(r"Got value: (.*)", text) or re.search(r"Given value: (.*)", text)
        plain = re.search(r"Expected a <class '(\w+)'>", text)
        choices = re.search(r"Expected a typing.Literal\[(.*?)\]", text)
        expected = _TYPES.get(plain[1], plain[1]) if plain else f"one of {choices[1]}" if choices else ""
        if expected and got:
            return UserError(f"{where}{found[1]}: expected {expected}, got {_shown(got[1].strip())}")
        return UserError(f"{where}{found[1]}: {_one_line(text)}")
    return UserError(_one_line(text) if where == "--" else f"{where}{_one_line(text)}")


def _shown(value: str) -> str:
    """A value as it was given, with what is wrong with it as YAML where it is none."""
    value = value.strip("'") if value.startswith(("'{", "'[")) else value
    if value.startswith(("{", "[")):
        try:
            read_yaml(value)
        except yaml.YAMLError as error:
            return f"{_one_line(value)}: {problem_of(error)[0]}"
    return value


def _in_full(text: str, known: Sequence[str]) -> str:
    """A class of settings names its own by where it mostly stands: `search.width` becomes `explore.search.width` where that is meant."""

    def full(found: re.Match[str]) -> str:
        ends = [setting for setting in known if setting.endswith(f".{found[0]}")]
        return ends[0] if len(ends) == 1 and found[0] not in known else found[0]

    return re.sub(r"(?<![\w./])[a-z_]+(?:\.[a-z_]+)+(?![\w/])", full, text)


def _unknown_setting(name: str, known: Sequence[str], where: str) -> UserError:
    same = name.replace("-", "_")
    dashes = "--" if where == "--" else ""
    near = get_close_matches(same, known, n=1, cutoff=0.5)
    owner = next((setting for setting in known if same.startswith(f"{setting}.") and not _section(setting, known)), None)
    if owner is not None:
        inner = same.removeprefix(f"{owner}.")
        return UserError(
            f"{where.removeprefix('--')}unknown setting {dashes}{name}: {owner} is one value, {dashes}{owner} '{{\"{inner}\": ...}}'"
        )
    tail = [setting for setting in known if setting.rsplit(".", 1)[-1] == same.rsplit(".", 1)[-1]]
    guess = same if same in known else tail[0] if tail else near[0] if near else None
    hint = f"did you mean {dashes}{guess}?" if guess else "see --help for all settings"
    return UserError(f"{where.removeprefix('--')}unknown setting {dashes}{name}: {hint}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
