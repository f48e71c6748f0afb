"""Converts settings given as Python values to command-line arguments."""

import inspect
import json
import os
from collections.abc import Mapping
from typing import Any

from etude.errors import UserError
from etude.settings.configuration import leaves, settings_of
from etude.settings.sections import sections_of


def arguments_from(overrides: Mapping[str, Any], kind: type[Any] | None = None) -> list[str]:
    """Convert Python values to command-line arguments: `{"rollout.num_samples": 4}` becomes `--rollout.num_samples=4`.

    With the `kind` of settings, nested values work too: `{"rollout": {"num_samples": 4}}`. Raises UserError for values that have no text
    form, such as a function.
    """
    if not isinstance(overrides, Mapping):
        raise UserError(f"settings must be a mapping, such as {{'seed': 1}}, got {type_with_article(overrides)}")
    if kind is not None:
        known = settings_of(kind)
        parts: dict[str, str] = {}
        for name, sections in sections_of(kind).items():
            parts |= {part: f"{name}.{part}" for part in sections.names if part not in known}
        overrides = {parts.get(name, name): value for name, value in overrides.items()}
    flat = list(overrides.items()) if kind is None else leaves(overrides, settings_of(kind))
    return [f"--{name}={_python_argument(name, value)}" for name, value in flat]


def _python_argument(name: str, value: Any) -> str:
    """Convert a Python value to text; paths and numpy numbers are allowed."""

    def plain(inner: Any) -> Any:
        if isinstance(inner, os.PathLike):
            return os.fspath(inner)
        if getattr(inner, "ndim", None) == 0 and hasattr(inner, "item"):
            return inner.item()
        raise not_plain_error(name, inner)

    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    return json.dumps(value, default=plain)


def not_plain_error(name: str, value: Any) -> UserError:
    """Return the error for a Python value that no setting can have, with the fix."""
    if hasattr(value, "save_pretrained"):
        return UserError(
            f"{name}: got {type_with_article(value)}, which is no setting: pass it with its tokenizer, model=(model, tokenizer)"
        )
    if inspect.isroutine(value):
        own = getattr(value, "__name__", "NAME")
        return UserError(f"{name}: got a function, which is no setting: pass it as reward=, or write it in a file and pass 'FILE.py:{own}'")
    return UserError(f"{name}: expected text, a number, a list or a mapping, got {type_with_article(value)}")


def type_with_article(value: Any) -> str:
    """Return the name of a value's type with its article: an int."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIOU' else 'a'} {kind}"
