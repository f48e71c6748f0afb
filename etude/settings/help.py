"""Prints the help of a configuration class: every setting with its type, its default and the text below its field."""

import ast
import functools
import importlib
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from etude.errors import unknown
from etude.settings.sections import Sections
from etude.settings.values import type_name

_WIDTH, _COLUMN = 80, 24


@dataclass(frozen=True)
class Setting:
    """A setting as help shows it."""

    name: str
    """Its full dotted name."""
    shown: str
    """Its name on the command line, without `callbacks.`."""
    hint: Any
    text: str
    default: Any

    def lines(self, short: str | None = None, here: Any = MISSING) -> list[str]:
        """Return the lines of the setting, with its `short` name, and its value `here` if that differs from the default."""
        shown = _value(self.default)
        about = "required" if self.default is MISSING else f"default: {shown}"
        if here is not MISSING and (self.default is MISSING or _value(here) != shown):
            about += f"; here: {_value(here)}"
        is_choice = get_origin(self.hint) is Literal or self.hint is bool
        about = f"({about})" if is_choice else f"(type: {type_name(self.hint)}, {about})"
        head = f"  --{self.shown} {_taken(self.shown, self.hint)}" + (f", --{short}" if short else "")
        body = textwrap.wrap(f"{self.text} {about}".strip(), _WIDTH - _COLUMN, break_long_words=False, break_on_hyphens=False)
        first = head.ljust(_COLUMN) + body.pop(0) if len(head) < _COLUMN - 1 else head
        return [first, *(" " * _COLUMN + line for line in body)]


@dataclass(frozen=True)
class Section:
    """The settings of one class, or the switches of all optional features."""

    title: str
    prefix: str
    """The beginning of their names, such as `learn.optimizer.`."""
    settings: list[Setting]


def help_of(kind: type[Any]) -> str:
    """Return the help text of a configuration class: all settings, by section."""
    return "\n".join(_text_of(section) for section in sections_in(kind))


def short_help(kind: type[Any], common: Sequence[str], short: Mapping[str, str], here: Mapping[str, Any]) -> str:
    """Return the help of the `common` settings, and a line for every section. `short` has short names, `here` a recipe's own values."""
    sections = list(sections_in(kind))
    known = {setting.name: setting for section in sections for setting in section.settings}
    names = {full: name for name, full in short.items()}
    lines = ["common settings:"]
    for name in common:
        lines += known[name].lines(names.get(name), here.get(name, MISSING))
    lines += ["", "sections (--help SECTION lists one, --help all everything):"]
    counts: dict[str, list[Any]] = {}
    for section in sections:
        if top := (_short(section.prefix) or section.prefix).partition(".")[0]:
            counts.setdefault(top, [section.title, 0])[1] += len(section.settings)
    lines += [f"  {top:<22}{title.split(':')[0]}"[:_WIDTH] + f" ({number})" for top, (title, number) in counts.items()]
    return "\n".join(lines) + "\n"


def topic_help(kind: type[Any], topic: str, short: Mapping[str, str], here: Mapping[str, Any]) -> str:
    """Return the help of a section, such as `learn` or `learn.optimizer`, or of one setting. Raises UserError for another topic."""
    sections = list(sections_in(kind))
    topic = topic.removeprefix("--")
    found = [section for section in sections if _short(section.prefix).startswith(f"{topic}.") or section.prefix == f"{topic}."]
    if not found:
        full = short.get(topic, topic)
        found = [
            replace(each, settings=own) for each in sections if (own := [one for one in each.settings if full in (one.name, one.shown)])
        ]
    if not found:
        tops = dict.fromkeys((_short(section.prefix) or section.prefix).partition(".")[0] for section in sections if section.prefix)
        raise unknown("section of settings", topic, [*tops, "all"])
    names = {full: name for name, full in short.items()}
    return "\n".join(_text_of(section, names, here) for section in found)


def sections_in(kind: type[Any]) -> Iterator[Section]:
    """Yield the sections of a configuration class: its own settings, then those of the classes inside it, then optional features."""
    yield from _sections(kind, "", "", None)


def _text_of(section: Section, names: Mapping[str, str] | None = None, here: Mapping[str, Any] | None = None) -> str:
    lines = [f"{section.title}:"]
    for each in section.settings:
        lines += each.lines((names or {}).get(each.name), (here or {}).get(each.name, MISSING))
    return "\n".join(lines) + "\n"


def _short(prefix: str) -> str:
    return prefix.removeprefix("callbacks.")


def _sections(kind: Any, prefix: str, shown: str, default: Any) -> Iterator[Section]:
    hints, texts, inner = get_type_hints(kind), _texts(kind), []
    optional: list[tuple[str, str, Sections, Any]] = []
    own = []
    for field in fields(kind):
        usual = _default(field) if default is None else getattr(default, field.name)
        if is_dataclass(hints[field.name]):
            inner.append((hints[field.name], f"{prefix}{field.name}.", f"{shown}{field.name}.", None if usual is MISSING else usual))
        elif "sections" in field.metadata:
            optional.append((texts.get(field.name, field.name), f"{prefix}{field.name}.", field.metadata["sections"], usual))
        else:
            own.append(Setting(prefix + field.name, shown + field.name, hints[field.name], texts.get(field.name, ""), usual))
    yield Section(_first_line(kind), prefix, own)
    for each in inner:
        yield from _sections(*each)
    for text, where, sections, listed in optional:
        yield from _optional_sections(text, where, sections, listed)


def _optional_sections(text: str, prefix: str, sections: Sections, listed: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the switches of all optional sections, then the settings of each."""
    kinds = {name: sections.settings_class(name, None) for name in sections.names}
    switches = [Setting(prefix + name, name, bool, f"{_first_line(kind)}.", str(name in listed).lower()) for name, kind in kinds.items()]
    yield Section(text.rstrip("."), prefix, switches)
    for name, kind in kinds.items():
        if fields(kind):
            yield from _sections(kind, f"{prefix}{name}.", f"{name}.", listed.get(name))


def _value(value: Any) -> str:
    """Return a value as help shows it."""
    return "null" if value is None else str(list(value)) if isinstance(value, tuple) else '""' if value == "" else str(value)


def _first_line(kind: Any) -> str:
    return (inspect.getdoc(kind) or kind.__name__).splitlines()[0].rstrip(".")


def _default(field: "Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


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
