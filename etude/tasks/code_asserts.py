"""Split an assert into the calls of the program, which its process computes, and the comparison, which another process makes.

    assert set(common([1, 2], [2, 3])) == {2}    becomes    common([1, 2], [2, 3])    and    assert set(_0) == {2}

So a program never sees what its tests expect, and whatever it does to its own process, it passes only by sending the right value. Values
cross as JSON and arrive as plain data: an object that claims to equal everything does not arrive.
"""

import ast
import builtins
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

_MOST_ITEMS = 10_000
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr)
_FROM_ITEMS: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "iterator": iter}


@dataclass(frozen=True)
class SplitAssert:
    """An assert whose calls of the program were replaced by the names `_0`, `_1` and so on."""

    calls: list[str]
    """The source of each."""
    comparison: ast.Module
    """The assert with the names."""


def split_assert(test: str, known: Collection[str], defined: Collection[str]) -> SplitAssert | None:
    """Split a test; None if it is not a single assert whose calls of the program can be computed beforehand.

    `known` are the names besides built-in ones that do not come from the program. Of `defined`, the names that the program gives to its
    functions, those of built-in functions count where the test has no other name: `assert sum(10, 15) == 6`. Raises SyntaxError.

    >>> split_assert("assert abs(half(3) - 1.5) < 0.1", {"math"}, {"half"}).calls
    ['half(3)']
    """
    module = ast.parse(test.strip())
    if len(module.body) != 1 or not isinstance(statement := module.body[0], ast.Assert):
        return None
    names = {node.id for node in ast.walk(statement.test) if isinstance(node, ast.Name)}
    theirs = {name for name in names if not hasattr(builtins, name) and name not in known} or names & set(defined)
    splitter = _Splitter(theirs)
    statement.test = splitter.visit(statement.test)
    statement.msg = None
    if splitter.is_bound or not splitter.calls:
        return None
    return SplitAssert(splitter.calls, ast.fix_missing_locations(module))


class _Splitter(ast.NodeTransformer):
    """Replaces the longest chains of calls, attributes and subscripts that begin with a name of the program."""

    def __init__(self, theirs: Collection[str]) -> None:
        self.theirs = theirs
        self.calls: list[str] = []
        self.is_bound = False
        """Whether a name of the program is used with variables of a comprehension or a lambda."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, _SCOPES):
            self.is_bound |= any(isinstance(each, ast.Name) and each.id in self.theirs for each in ast.walk(node))
            return node
        first = node
        while isinstance(first, ast.Call | ast.Attribute | ast.Subscript):
            first = first.func if isinstance(first, ast.Call) else first.value
        if not isinstance(first, ast.Name) or first.id not in self.theirs:
            return self.generic_visit(node)
        self.calls.append(ast.unparse(node))
        return ast.Name(f"_{len(self.calls) - 1}", ast.Load())


def to_plain(value: Any) -> Any:
    """Convert a value to JSON: numbers, texts and None as they are, another as its kind and its content. Raises TypeError for an object."""
    if value is None or isinstance(value, bool | int | float | str):
        return value if isinstance(value, bool) or value is None else _without_class(value)
    if isinstance(value, complex):
        return ["complex", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", [[to_plain(key), to_plain(each)] for key, each in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [to_plain(each) for each in value]]
    if hasattr(value, "__next__"):
        return ["iterator", [to_plain(each) for each in islice(value, _MOST_ITEMS)]]
    raise TypeError(f"it gave a {type(value).__name__}, which is no plain data")


def _without_class(value: int | float | str) -> Any:
    return next(kind(value) for kind in (int, float, str) if isinstance(value, kind))


def from_plain(found: Any) -> Any:
    """Build a value from JSON that anybody may have written. Raises ValueError or TypeError for what `to_plain` never gives."""
    if not isinstance(found, list):
        if isinstance(found, dict):
            raise ValueError("it sent what is no value")
        return found
    kind, content = found
    if kind == "complex":
        return complex(*content)
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {from_plain(key): from_plain(each) for key, each in content}
    if kind not in _FROM_ITEMS:
        raise ValueError("it sent what is no value")
    return _FROM_ITEMS[kind]([from_plain(each) for each in content])
