"""Calls from Python: their settings, run folder and progress; libraries' progress bars switched off."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from transformers.utils import logging

from etude.console.reporter import Console, Reporter, Silent
from etude.errors import UserError
from etude.settings.arguments import type_with_article
from etude.settings.configuration import find_configuration


def configuration_for(command: str, given: Any) -> Path:
    """Return the file of a configuration by name or path. Raises UserError if it is missing, or if settings are given instead."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"{command} takes the name of a recipe or a YAML file first, then settings: {command}('tiny', {{...}})")
    return find_configuration(command, str(os.fspath(given)))


def keywords_with(settings: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings given as a mapping and as keywords together. Raises UserError for one that is given twice."""
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(f"settings must be a mapping, such as {{'seed': 1}}, got {type_with_article(settings)}")
    for name in more:
        if name in (settings or {}):
            raise UserError(f"{name} is given twice, as a keyword and in the mapping of settings: give it once")
    return {**(settings or {}), **more}


def run_folder(name: str, *, resume: bool) -> Path:
    """Return the first of `runs/NAME`, `runs/NAME-2`, ... that does not exist; to resume, the last one that does."""
    folders = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    last = next(folders)
    while last.exists():
        following = next(folders)
        if resume and not following.exists():
            return last
        last = following
    return last


def reporter_for(verbose: bool | None) -> Reporter:
    """Return a reporter that prints, or a silent one; if not said, it prints in a terminal and in a notebook."""
    is_notebook = "ipykernel" in sys.modules
    if verbose if verbose is not None else is_notebook or sys.stdout.isatty():
        return Console(RichConsole(highlight=False, soft_wrap=True, markup=False, force_jupyter=False))
    return Silent()


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
