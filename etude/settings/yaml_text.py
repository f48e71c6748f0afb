"""Reads and writes YAML: common number formats, no repeated keys, and bounds on untrusted files.

`read_yaml` is `yaml.safe_load` with four differences.

| text | PyYAML | here |
|---|---|---|
| `steps: 1`, then `steps: 2` in one mapping | the last one, silently | an error that names both lines |
| `010`, `1:30`, `2024-01-01` | 8, 90, a date (YAML 1.1) | the unchanged text, so that a number setting refuses it |
| `1e-5` | a text (YAML 1.1 requires a point) | the number |
| nesting, aliases, length | unlimited: a file of 300 bytes can fill the memory | at most `MAX_DEPTH`, `MAX_SIZE`, `MAX_CHARACTERS` |
"""

import re
from typing import Any

import yaml

MAX_CHARACTERS = 1_000_000
"""Maximum length of a text, in characters."""
MAX_DEPTH = 100
"""Maximum nesting of mappings and lists."""
MAX_SIZE = 4_000_000
"""Maximum size of a value: its characters plus one for each key, value and item, with aliases expanded."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)")
_FLOAT = re.compile(
    r"[-+]?(?:(?:[0-9][0-9_]*)?\.[0-9_]+|[0-9][0-9_]*\.)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_OURS = {"tag:yaml.org,2002:int": (_INT, "-+0123456789"), "tag:yaml.org,2002:float": (_FLOAT, "-+.0123456789")}
_TEXT = ("tag:yaml.org,2002:timestamp", *_OURS)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the bounds and numbers above."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels within each other", problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _TEXT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, (_pattern, _first) in _OURS.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern.pattern})\Z"), list(_first))


def read_yaml(text: str) -> Any:
    """Parse a YAML text. Raises yaml.YAMLError, with the line as `problem_mark` if it is known.

    >>> read_yaml("{steps: 12, rate: 1e-5, code: 010}")
    {'steps': 12, 'rate': 1e-05, 'code': '010'}
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.MarkedYAMLError(problem=f"{len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.MarkedYAMLError(problem="an alias that holds itself") from error
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that also quotes texts which `read_yaml` or PyYAML would read as another type."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("-+.0123456789"))


def as_yaml(value: Any) -> Any:
    """Return a single value as YAML text: `true`, `null`."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def write_yaml(value: Any) -> str:
    """Write plain values as YAML that `read_yaml` and PyYAML read back equally, keys in order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def problem_of(error: yaml.YAMLError) -> tuple[str, int | None]:
    """Return the problem of a YAML error in words, and its line, counted from 1, if it is known."""
    mark = getattr(error, "problem_mark", None)
    return str(getattr(error, "problem", None) or error), mark.line + 1 if mark else None


def _check(node: Any) -> None:
    """Raise YAMLError for a value larger than `MAX_SIZE` with aliases expanded, an alias that contains itself, or a repeated key."""
    sizes: dict[int, int | None] = {}

    def size_of(node: Any) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value)
        known = sizes.get(id(node), 0)
        if known is None:
            raise yaml.MarkedYAMLError(problem="an alias that holds itself", problem_mark=node.start_mark)
        if known:
            return known
        sizes[id(node)] = None
        _check_keys(node)
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        found = 1 + sum(map(size_of, inner))
        if found > MAX_SIZE:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_SIZE:,} characters where aliases repeat them", problem_mark=node.start_mark)
        sizes[id(node)] = found
        return found

    size_of(node)


def _check_keys(node: Any) -> None:
    """Raise YAMLError for a repeated key; keys that come from a merge key `<<` may be repeated."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines:
            raise yaml.MarkedYAMLError(
                problem=f"{key.value!r} is given twice, in line {lines[name]} too: give it once", problem_mark=key.start_mark
            )
        lines[name] = line
