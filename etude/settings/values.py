"""Converts text from a command line, or a value from YAML, to the type of a setting.

str                  the unchanged text
int, float, bool     10, 1_000; 1e-5, inf; true, false, yes, no, on, off; neither 010, 1:30 nor nan
X | None             null is None, and so is none, except for text
X | Y                the first type that accepts the value
Literal              one of its words
list, tuple, dict    JSON or YAML, of items of their own types
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from etude.settings.yaml_text import read_yaml

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]")
"""A number with a leading zero, which is refused: YAML 1.1 reads it in base 8, most people in base 10."""
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class WrongValue(ValueError):
    """The value does not have the setting's type; the message says what is expected."""


def from_text(hint: Any, text: str) -> Any:
    """Convert `text` to the type. Raises WrongValue."""
    kinds, is_optional = _kinds(hint)
    if is_optional and text in (("null", "~") if str in kinds else ("null", "~", "none", "None")):
        return None
    return _first(hint, kinds, lambda kind: _read(kind, text))


def _read(kind: Any, text: str) -> Any:
    if get_origin(kind) in (list, tuple, dict):
        return to_type(kind, _loaded(text, kind))
    return to_type(kind, text.strip() if kind in (int, float, bool) else text)


def _loaded(text: str, hint: Any) -> Any:
    """Parse JSON first, then YAML, which reads some of JSON's escapes differently."""
    try:
        with suppress(json.JSONDecodeError):
            return json.loads(text)
        return read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise WrongValue(expected(hint)) from None


def to_type(hint: Any, value: Any) -> Any:
    """Convert `value` to the type if it fits; a number may be given as text. Raises WrongValue."""
    kinds, is_optional = _kinds(hint)
    return value if is_optional and value is None else _first(hint, kinds, lambda kind: _typed(kind, value))


def _typed(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    found = _CONVERTED.get(kind, _of_form)(value, kind)
    if found is _WRONG:
        raise WrongValue(expected(kind))
    return found


def _first(hint: Any, kinds: Sequence[Any], convert: Callable[[Any], Any]) -> Any:
    """Convert with the first of several types that accepts the value."""
    if len(kinds) == 1:
        return convert(kinds[0])
    for kind in kinds:
        with suppress(WrongValue):
            return convert(kind)
    raise WrongValue(expected(hint))


_WRONG = object()


def _text(value: Any, _: Any) -> Any:
    if isinstance(value, (str, Path)):
        return str(value)
    return json.dumps(value) if isinstance(value, (bool, int, float)) else _WRONG


def _whole(value: Any, _: Any) -> Any:
    if isinstance(value, str):
        return int(value) if _WHOLE.fullmatch(value) else _WRONG
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _number(value: Any, _: Any) -> Any:
    if isinstance(value, str):
        if _LEADING_ZERO.match(value):
            return _WRONG
        try:
            value = float(value.replace(".inf", "inf"))
        except ValueError:
            return _WRONG
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # NaN is no number
    return float(value) if is_number else _WRONG


def _truth(value: Any, _: Any) -> Any:
    return value if isinstance(value, bool) else _WORDS.get(value.lower(), _WRONG) if isinstance(value, str) else _WRONG


_CONVERTED = {str: _text, int: _whole, float: _number, bool: _truth}


def _of_form(value: Any, hint: Any) -> Any:
    """Convert to a Literal, list, tuple or dictionary type."""
    form, inner = get_origin(hint), get_args(hint)
    if form is Literal:
        return value if value in inner else _WRONG
    if form is list and isinstance(value, (list, tuple)):
        return [to_type(inner[0], item) for item in value]
    if form is tuple and isinstance(value, (list, tuple)) and len(value) == len(inner):
        return tuple(to_type(item_type, item) for item_type, item in zip(inner, value, strict=True))
    if form is dict and isinstance(value, Mapping):
        return {to_type(str, key): to_type(inner[1], item) for key, item in value.items()}
    return _WRONG


def expected(hint: Any) -> str:
    """Describe in words what a type accepts."""
    kinds, _ = _kinds(hint)
    if len(kinds) > 1:
        return " or ".join(map(expected, kinds))
    inner = kinds[0]
    form, within = get_origin(inner), get_args(inner)
    if form is Literal:
        return f"one of {', '.join(map(repr, within))}"
    if form is dict:
        return "a mapping, such as '{name: value}'"
    if form is tuple:
        return f"a list of {len(within)}, such as {json.dumps([0.5] * len(within))}"
    if form is list:
        return {int: "whole numbers", float: "numbers", str: "texts"}.get(within[0], "a list of mappings, such as '[{name: value}]'")
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(inner, str(inner))


def type_name(hint: Any) -> str:
    """Return the name of a type for help texts."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join("null" if each is NoneType else type_name(each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _kinds(hint: Any) -> tuple[list[Any], bool]:
    """Return the types that a value may have, and whether it may be None."""
    if get_origin(hint) not in (Union, UnionType):
        return [hint], False
    kinds = get_args(hint)
    return [each for each in kinds if each is not NoneType], NoneType in kinds
