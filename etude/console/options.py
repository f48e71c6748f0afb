"""Parses the options that commands share, before a command's settings are read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from etude.errors import UserError
from etude.outputs import check_output, is_result

OPTIONS = {
    "run": "--run DIR      run folder (default: runs/NAME)",
    "data": "--data DIR     folder of data sets (default: the environment variable ETUDE_DATA)",
    "json": "--json FILE    also write the result as JSON; - is standard output. A file that etude did not write is not replaced",
    "page": "--page FILE    write an HTML page; - and existing files as for --json",
    "force": "--force        replace existing files of --json and --page, whoever wrote them",
    "track": "--track NAMES  log metrics to trackers, too: tensorboard, wandb, trackio, ... (separated by commas)",
    "resume": "--resume       resume an unfinished run",
    "dry_run": "--dry-run      print the resolved configuration, estimate time, memory and disk from one step, and stop",
}
EVERYWHERE = """  -q, --quiet    no progress; only results, and how a run ended
  --verbose      logs and progress bars of libraries, and tracebacks of errors
"""
_FLAGS = ("force", "resume", "dry_run")
_OTHER_WORDS = {
    **dict.fromkeys(("outputdir", "outdir", "output", "rundir", "out"), "run"),
    **dict.fromkeys(("datadir", "datapath"), "data"),
    **dict.fromkeys(("reportto", "logger", "wandb", "tracker"), "track"),
    **dict.fromkeys(("resumefromcheckpoint", "continue"), "resume"),
    **dict.fromkeys(("outputpath", "outfile", "resultfile"), "json"),
}
"""Names of these options in other tools, without hyphens."""


@dataclass
class Options:
    """The values of the shared options."""

    run: Path | None = None
    data: Path | None = None
    json: str | None = None
    page: str | None = None
    force: bool = False
    track: str | None = None
    resume: bool = False
    dry_run: bool = False


def take_options(arguments: Sequence[str], *names: str) -> tuple[Options, list[str]]:
    """Parse the shared options of a command; returns them and the other arguments.

    Raises UserError for a missing value, another spelling, a missing data folder and a `--json` file that must not be replaced.
    """
    options, rest = Options(), list(arguments)
    for name in names:
        written = "--" + name.replace("_", "-")
        if name in _FLAGS:
            setattr(options, name, written in rest)
            rest = [argument for argument in rest if argument != written]
            continue
        value, rest = take_option(rest, written)
        setattr(options, name, Path(value) if value is not None and name in ("run", "data") else value)
    _check_spelling(rest, names)
    if "data" in names and options.data is None and os.environ.get("ETUDE_DATA"):
        options.data = Path(os.environ["ETUDE_DATA"])
    if options.data and not options.data.is_dir():
        raise UserError(f"--data {options.data}: no such folder")
    if options.json is not None:
        check_output("--json", options.json, is_result, force=options.force)
    return options, rest


def take_option(arguments: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Return the value of `--option VALUE` or `--option=VALUE`, and the other arguments.

    Raises UserError for a missing or empty value.
    """
    rest: list[str] = []
    value = None
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == option:
            if not queue:
                raise UserError(f"{option} needs a value")
            value = queue.pop(0)
        elif argument.startswith(option + "="):
            value = argument.split("=", 1)[1]
        else:
            rest.append(argument)
            continue
        if not value:
            raise UserError(f"{option} needs a value, and got an empty one: give one, or leave it out")
    return value, rest


def options_help(*names: str, more: Mapping[str, str] | None = None) -> str:
    """Return the help text of these options."""
    return "common options\n" + "".join(f"  {(more or {}).get(name, OPTIONS[name])}\n" for name in names) + EVERYWHERE


def refuse_options(rest: Sequence[str], usage: str) -> None:
    """Raise UserError for an option that the command does not have."""
    for word in rest:
        if word.startswith("-") and word != "-":
            raise UserError(f"unknown option {word}: {usage}")


def _check_spelling(rest: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError for a shared option in another spelling: `--dryrun`, `--dry_run`."""
    by_letters = {name.replace("_", ""): name for name in names}
    for word in rest:
        option = word.partition("=")[0]
        letters = option.lstrip("-").replace("-", "").replace("_", "").lower()
        meant = by_letters.get(letters, _OTHER_WORDS.get(letters))
        if option.startswith("--") and meant is not None and meant in names:
            raise UserError(f"unknown option {option}: did you mean --{meant.replace('_', '-')}?")
