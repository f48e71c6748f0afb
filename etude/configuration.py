"""From a configuration's name or YAML file and `--key value` overrides to typed dataclasses, and every mistake in one sentence.

The dataclasses beside the code are the only list of settings: jsonargparse makes options and help from their fields and docstrings.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from etude.errors import UserError, unknown

Configuration = TypeVar("Configuration")

set_parsing_settings(docstring_parse_attribute_docstrings=True)

_SHIPPED = Path(__file__).parent / "configs"


def shipped(command: str) -> dict[str, Path]:
    """The configurations that ship for a command, by name."""
    return {path.stem: path for path in sorted(_SHIPPED.glob("*.yaml")) if yaml.safe_load(path.read_text()).get("command") == command}


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


def parse(kind: type[Configuration], path: Path | None, overrides: Sequence[str]) -> Configuration:
    """A `kind` from a YAML file and `--key value` overrides; raises UserError for anything unknown or of the wrong type."""
    parser = parser_for(kind)
    arguments = list(overrides)
    try:
        if path is not None:
            parser.set_defaults(_defaults(parser, path))
        with contextlib.redirect_stderr(io.StringIO()):
            values = parser.parse_args(arguments)
            made = parser.instantiate_classes(values)
    except (ArgumentError, TypeError, ValueError) as error:
        raise _sentence(error, parser, path) from None
    return kind(**{field.name: made[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def parser_for(kind: type[Any]) -> ArgumentParser:
    """The options of a configuration class."""
    parser = ArgumentParser(exit_on_error=False, default_env=False)
    parser.add_class_arguments(kind)
    return parser


def resolved(configuration: Any) -> dict[str, Any]:
    """Plain nested values, ready for YAML and for comparison."""
    return _plain(asdict(configuration))


def names_of(kind: type[Any]) -> list[str]:
    """Every dotted setting of a configuration class."""
    return sorted(action.dest for action in parser_for(kind)._actions if action.dest not in ("help",))


def _defaults(parser: ArgumentParser, path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected settings as `key: value` lines, got {type(values).__name__}")
    values.pop("command", None)
    known = [action.dest for action in parser._actions]
    flat: dict[str, Any] = {}
    for name, value in _leaves(values, known):
        if name not in known:
            raise _unknown_setting(name, known, f"{path}: ")
        flat[name] = value
    return flat


def _leaves(values: dict[str, Any], known: Sequence[str], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted names and values; a mapping is walked into only where settings live below it."""
    found = []
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict) and any(setting.startswith(dotted + ".") for setting in known):
            found += _leaves(value, known, dotted + ".")
        else:
            found.append((dotted, value))
    return found


def _sentence(error: Exception, parser: ArgumentParser, path: Path | None) -> UserError:
    """jsonargparse's many lines as one sentence."""
    if isinstance(error, UserError):
        return error
    known = [action.dest for action in parser._actions]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    if found := re.search(r"[Uu]nrecognized arguments: --([\w.\-]+)", text):
        return _unknown_setting(found[1], known, "")
    if found := re.search(r'[Kk]ey "([\w.]+)"', text):
        setting = found[1]
        values = re.search(r"Given value(?: type)?: (.*)", text)
        expected = re.search(r"(?:Expected[^:]*: ?|Expected a )(.*)", text)
        detail = "; ".join(part[0].strip().rstrip(".") for part in (expected, values) if part)
        return UserError(f"--{setting}: {detail or _one_line(text)}")
    return UserError(_one_line(text))


def _unknown_setting(name: str, known: Sequence[str], where: str) -> UserError:
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    tail = [setting for setting in known if setting.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    guess = tail[0] if tail else near[0] if near else None
    hint = f"did you mean --{guess}?" if guess else "see --help for all settings"
    return UserError(f"{where}unknown setting --{name}: {hint}")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
