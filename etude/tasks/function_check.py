"""Checks that a user's function exists, from the text of its file, without running it.

Only the verifiers' process runs a verifier's file (`etude.rewards.worker`), so before a run begins the main process only reads the file. A
name that the text does not show (from a star import or `exec`) is assumed to exist; the verifiers' process checks it.
"""

import ast
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.machinery import ModuleSpec
from pathlib import Path

from etude.errors import UserError, unknown

PYTHON_OBJECT = "python:"
"""How the verifier of a task begins that is scored by a Python object, not by a file's function."""

_MAKES_NAMES = frozenset({"exec", "globals", "locals", "setattr", "vars", "__getattr__"})


def split_name(name: str, what: str = "function") -> tuple[str, str]:
    """Split `file.py:function` or `package.module:function` into the file or module, and the function.

    Raises UserError if the name has another form.

    >>> split_name("mine.py:judge")
    ('mine.py', 'judge')
    """
    place, separator, function_name = name.rpartition(":")
    if not separator or not place or not function_name:
        which = f": say which of the file, {name}:{what.upper()}" if name.endswith(".py") else ""
        raise UserError(f"a {what} is named file.py:{what} or package.module:{what}, got {name!r}{which}")
    return place, function_name


def check_function(name: str) -> None:
    """Raise UserError if the file or module is missing or not Python, or if it has no such name at its top level."""
    place, function_name = split_name(name)
    if place.endswith(".py"):
        path: Path | None = require_file(Path(place))
    else:
        path = _module_file(place)
    if path is None:  # no Python text: an extension or built-in module
        return
    try:
        names = top_level_names(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{path} does not run: {type(error).__name__}: {error}") from None
    if names is not None and function_name not in names:
        raise unknown(f"function in {place}", function_name, [known for known in names if not known.startswith("_")])


def require_file(path: Path, what: str = "function") -> Path:
    """Return the path of a file. Raises UserError, with the nearest name, if there is no such file."""
    if not path.is_file():
        near = get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1)
        hint = f": did you mean {near[0]!r}?" if near else f": no such file in {path.parent.resolve()}"
        raise UserError(f"{what} file {str(path)!r} is missing{hint}")
    return path


def top_level_names(source: bytes) -> set[str] | None:
    """Collect the names at the top level of a Python source; returns None if the source does not show all of them.

    >>> sorted(top_level_names(b"import os\\ndef judge(text, task):\\n    local = 1\\nif os.sep:\\n    number: int = 3"))
    ['judge', 'number', 'os']
    """
    found: set[str] = set()
    for node in _top_level(ast.parse(source).body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Global):
            found |= set(node.names)
        elif isinstance(node, ast.Name) and node.id in _MAKES_NAMES:
            return None
    return None if found & {"*", "__getattr__"} else found


def _top_level(statements: Iterable[ast.AST]) -> Iterable[ast.AST]:
    """Yield the nodes that run with a file: only the names of functions and classes, and names that functions declare global."""
    todo = list(statements)
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield from (inner for inner in ast.walk(node) if isinstance(inner, ast.Global))
        else:
            todo += ast.iter_child_nodes(node)


def _module_file(name: str) -> Path | None:
    """Find the source file of a module without importing its packages; None if it has no Python source."""
    path, parts = None, name.split(".")
    for end in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:end]), path)
        if spec is None:
            raise import_failure(name, f"ModuleNotFoundError: No module named {'.'.join(parts[:end])!r}")
        path = spec.submodule_search_locations
    assert spec is not None
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _spec(name: str, path: Iterable[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        if find is not None and (spec := find(name, path)) is not None:
            return spec
    return None


def import_failure(name: str, problem: str) -> UserError:
    """Return the error for a module that cannot be imported."""
    return UserError(f"module {name!r} cannot be imported: {problem}. A file is named with its ending: {name.split('.')[-1]}.py")
