"""Text of a command line, or a value of YAML, to a value of a setting's type.

str                  the text as it stands
int, float, bool     10, 1_000; 1e-5, inf, nan; true, false, yes, no, on, off
X | None             null, and for anything but text none, is None
X | Y                the first of them that it can be
Literal              one of its words
list, tuple, dict    JSON or YAML, of items of their own types
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class WrongValue(ValueError):
    """A value that is not of a setting's type; the message says what is expected."""


def read(hint: Any, text: str) -> Any:
    """The value that `text` stands for. Raises WrongValue."""
    inner, is_optional = _without_none(hint)
    if get_origin(inner) is Union:
        return _first(lambda kind: read(kind, text), hint)
    if is_optional and text in (("null", "~") if inner is str else ("null", "~", "none", "None")):
        return None
    if get_origin(inner) in (list, tuple, dict):
        return typed(hint, _loaded(text, hint))
    return typed(hint, text if inner is Any else text.strip() if inner in (int, float, bool) else text)


def _loaded(text: str, hint: Any) -> Any:
    """What JSON stands for, or else YAML, which reads some of JSON's escapes otherwise."""
    with suppress(json.JSONDecodeError):
        return json.loads(text)
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise WrongValue(expected(hint)) from None


def typed(hint: Any, value: Any) -> Any:
    """`value` as this type, where it is one of it: a whole number may be text, or a float. Raises WrongValue."""
    inner, is_optional = _without_none(hint)
    if inner is Any or (is_optional and value is None):
        return value
    if get_origin(inner) is Union:
        return _first(lambda kind: typed(kind, value), hint)
    found = _CONVERTED.get(inner, _of_form)(value, inner)
    if found is _WRONG:
        raise WrongValue(expected(hint))
    return found


def _first(convert: Callable[[Any], Any], hint: Any) -> Any:
    """What the first of several types makes of a value."""
    for kind in get_args(hint):
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
        try:
            return int(value, 10)
        except ValueError:
            return _WRONG
    return value if isinstance(value, int) and not isinstance(value, bool) else _WRONG


def _number(value: Any, _: Any) -> Any:
    if isinstance(value, str):
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
    """Of a type with others inside."""
    form, inner = get_origin(hint), get_args(hint)
    if form is Literal:
        return value if value in inner else _WRONG
    if form is list and isinstance(value, (list, tuple)):
        return [typed(inner[0], item) for item in value]
    if form is tuple and isinstance(value, (list, tuple)) and len(value) == len(inner):
        return tuple(typed(own, item) for own, item in zip(inner, value, strict=True))
    if form is dict and isinstance(value, Mapping):
        return {typed(str, key): typed(inner[1], item) for key, item in value.items()}
    return _WRONG


def expected(hint: Any) -> str:
    """What a setting takes, in words."""
    inner, _ = _without_none(hint)
    form, within = get_origin(inner), get_args(inner)
    if form is Union:
        return " or ".join(map(expected, within))
    if form is Literal:
        return f"one of {', '.join(map(repr, within))}"
    if form is dict:
        return "a mapping, such as '{name: value}'"
    if form is tuple:
        return f"a list of {len(within)}, such as {json.dumps([0.5] * len(within))}"
    if form is list:
        return {int: "whole numbers", float: "numbers", str: "texts"}.get(within[0], "a list of mappings, such as '[{name: value}]'")
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(inner, str(inner))


def named(hint: Any) -> str:
    """The type as help shows it."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join("null" if each is NoneType else named(each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")


def _without_none(hint: Any) -> tuple[Any, bool]:
    """The type without None, and whether that was in it."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    kinds = [each for each in get_args(hint) if each is not NoneType]
    return Union[tuple(kinds)], len(kinds) < len(get_args(hint))  # noqa: UP007 - of one type it is that type
