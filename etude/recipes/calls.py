"""Calls from Python: checks of their arguments, and libraries' progress bars switched off."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging

from etude.errors import UserError
from etude.settings.arguments import not_plain_error, type_with_article
from etude.settings.configuration import find_configuration


def model_name(model: Any) -> str:
    """Return a model's name, or its folder as text. Raises UserError for anything else."""
    if isinstance(model, str | os.PathLike):
        return str(os.fspath(model))
    if hasattr(model, "save_pretrained"):
        raise not_plain_error("model", model)
    raise UserError(f"model must be a bundled name, a folder, a .gguf file or a hub id, got {type_with_article(model)}")


def configuration_for(command: str, given: Any) -> Path:
    """Return the file of a configuration by name or path. Raises UserError if it is missing, or if settings are given instead."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"{command} takes the name of a configuration or a YAML file first, then settings: {command}('tiny', {{...}})")
    return find_configuration(command, str(os.fspath(given)))


def reject_keywords(call: str, keywords: Mapping[str, Any]) -> None:
    """Raise UserError if settings were given as keywords."""
    if keywords:
        example = ", ".join(f"{name!r}: {value!r}" for name, value in keywords.items())[:200]
        raise UserError(f"{call} takes settings as a mapping, not as keywords: {call}(..., {{{example}}})")


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Switch transformers' progress bars off inside the context, and restore them after it."""
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
