"""Prints the help of a configuration class: every setting with its type, its default and the text below its field."""

import ast
import functools
import importlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from etude.settings.sections import Sections
from etude.settings.values import type_name

_WIDTH, _COLUMN = 80, 24


def help_of(kind: type[Any]) -> str:
    """Return the help text of a configuration class, by section."""
    return "\n".join(_sections(kind, "", None))


def _sections(kind: Any, prefix: str, default: Any) -> Iterator[str]:
    """Yield the help of a class's settings, then of the classes inside it, then of its optional sections, by their short names."""
    hints, texts, inner = get_type_hints(kind), _texts(kind), []
    optional: list[tuple[str, Sections, Any]] = []
    lines = [f"{_first_line(kind)}:"]
    for field in fields(kind):
        usual = _default(field) if default is None else getattr(default, field.name)
        if is_dataclass(hints[field.name]):
            inner.append((hints[field.name], f"{prefix}{field.name}.", None if usual is MISSING else usual))
        elif "sections" in field.metadata:
            optional.append((texts.get(field.name, field.name), field.metadata["sections"], usual))
        else:
            lines += _setting(prefix + field.name, hints[field.name], texts.get(field.name, ""), usual)
    yield "\n".join(lines) + "\n"
    for each in inner:
        yield from _sections(*each)
    for text, sections, listed in optional:
        yield from _optional_sections(text, sections, listed)


def _optional_sections(text: str, sections: Sections, listed: Mapping[str, Any]) -> Iterator[str]:
    """Yield the switches of all optional sections, then the help of each."""
    kinds = {name: sections.settings_class(name, None) for name in sections.names}
    lines = [f"{text.rstrip('.')}:"]
    for name, kind in kinds.items():
        lines += _setting(name, bool, f"{_first_line(kind)}.", str(name in listed).lower())
    yield "\n".join(lines) + "\n"
    for name, kind in kinds.items():
        if fields(kind):
            yield from _sections(kind, f"{name}.", listed.get(name))


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or kind.__name__).splitlines()[0].rstrip(".")


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _setting(name: str, hint: Any, text: str, default: Any) -> list[str]:
    shown = "null" if default is None else str(list(default)) if isinstance(default, tuple) else str(default)
    about = "required" if default is MISSING else f"default: {shown}"
    about = f"({about})" if get_origin(hint) is Literal or hint is bool else f"(type: {type_name(hint)}, {about})"
    head = f"  --{name} {_taken(name, hint)}"
    body = textwrap.wrap(f"{text} {about}".strip(), _WIDTH - _COLUMN, break_long_words=False, break_on_hyphens=False)
    first = head.ljust(_COLUMN) + body.pop(0) if len(head) < _COLUMN - 1 else head
    return [first, *(" " * _COLUMN + line for line in body)]


def _taken(name: str, hint: Any) -> str:
    """Return the placeholder of an option's value."""
    if hint is bool:
        return "{true,false}"
    if get_origin(hint) is Literal:
        return "{" + ",".join(map(str, get_args(hint))) + "}"
    if get_origin(hint) is list:
        return "ITEM [ITEM ...]"
    if get_origin(hint) is tuple:
        return "[" + ", ".join("ITEM" for _ in get_args(hint)) + "]"
    return name.rsplit(".", 1)[-1].upper()


def _texts(kind: type[Any]) -> dict[str, str]:
    """Collect the texts below the fields of a class and its bases; the most derived class wins."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if is_dataclass(each):
            found |= _texts_in(each.__module__).get(each.__qualname__, {})
    return found


@functools.cache
def _texts_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Read the texts below the fields of every class of a module from its file."""
    path = importlib.import_module(module).__file__
    tree = ast.parse(Path(path).read_text(encoding="utf8")) if path else ast.Module([], [])
    return {each.name: _below(each) for each in tree.body if isinstance(each, ast.ClassDef)}


def _below(kind: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, text in zip(kind.body, kind.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
            if is_text:
                found[field.target.id] = " ".join(text.value.value.split())  # type: ignore[attr-defined]
    return found
