"""Pack a run for other people: one file without weights, machine paths and secrets.

    etude report RUN --pack run.zip

It holds configuration, metrics, attempts, evaluations, result, card and a new report, without checkpoints, weights and the command line.
Data that identifies the machine and its user is removed (`etude.export.redaction`). Links are not followed, and damaged files are skipped
with a warning. Other texts of models and data sets are unchanged: read them before you share the file.
"""

import gzip
import json
import logging
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from etude.errors import UserError
from etude.evaluation.report import write_report
from etude.evaluation.report.bounded_reading import display_name, parse_json, read_bytes, read_lines
from etude.evaluation.report.run_folder import check_is_run
from etude.export.redaction import Redaction, walked
from etude.outputs import STANDARD_OUTPUT, write_output

log = logging.getLogger(__name__)

SETTINGS = ("configuration.yaml", "environment.json", "result.json", "model/etude.yaml")
"""Files that mention paths and users, which are then removed from all other files, too."""
FILES = (*SETTINGS, "metrics.jsonl", "timings.jsonl", "model/README.md")
FOLDERS = ("evaluation", "attempts", "trees")
_MAX_YAML_BYTES = 1_000_000


def pack(run: Path, out: Path, *, replaces: bool = False) -> Path:
    """Write the run in `run` as a zip file and return its path; `replaces` allows an existing file.

    Raises UserError for a folder that is no run, for a wrong or existing file name, and if nothing can be packed.
    """
    try:
        check_is_run(run)
    except UserError as error:
        raise UserError(f"--pack: {error}") from None
    is_file = str(out) != STANDARD_OUTPUT and (out.is_file() or not out.exists())  # or a device, or a pipe
    if is_file and out.suffix != ".zip":
        raise UserError(f"--pack {out}: name a file that ends in .zip")
    if out.is_file() and not replaces:
        raise UserError(f"--pack {out}: exists already: name another file, or replace it with --force")
    left_out: list[str] = []
    chosen = list(_chosen(run, left_out))
    settings = {path: _value(path, left_out) for path in chosen if path.relative_to(run).as_posix() in SETTINGS}
    redaction = Redaction(settings.values())
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / (redaction.of_text(run.resolve().name) or "run")
        for path in chosen:
            target = copy / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            if path in settings:
                _write_settings(settings[path], target, redaction)
            else:
                _write_cleaned(path, target, redaction, left_out)
        try:
            check_is_run(copy)
        except UserError:
            raise UserError(f"--pack: nothing of the run in {run} can be packed: {'; '.join(left_out)}") from None
        write_report([copy], copy / "report.html")
        packed = Path(scratch) / "packed"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(copy.rglob("*")):
                if path.is_file():
                    archive.write(path, Path(copy.name) / path.relative_to(copy))
        write_output(out, packed.read_bytes())
    if left_out:
        log.warning("--pack: %s", "; ".join(dict.fromkeys(left_out)))
    return out


def _chosen(run: Path, left_out: list[str]) -> Iterator[Path]:
    """Yield the files to pack, without links, which may lead to any file of the user."""
    folders = [path for folder in FOLDERS for path in sorted((run / folder).glob("*")) if path.suffix in (".json", ".gz")]
    for path in (*(run / name for name in FILES), *folders):
        if path.is_symlink() or (path.parent != run and path.parent.is_symlink()):
            left_out.append(f"{display_name(path)} is a link and left out")
        elif path.exists() or path.parent != run:
            yield path


def _write_settings(value: Any, target: Path, redaction: Redaction) -> None:
    """Write a redacted settings file, unless it could not be read."""
    if value is None:
        return
    if target.name == "environment.json" and isinstance(value, dict):
        value = {name: fact for name, fact in value.items() if name != "command"}
    cleaned = walked(value, redaction.of_setting)
    is_json = target.suffix == ".json"
    target.write_text(json.dumps(cleaned, indent=1) if is_json else yaml.safe_dump(cleaned, sort_keys=False, allow_unicode=True), "utf-8")


def _write_cleaned(path: Path, target: Path, redaction: Redaction, left_out: list[str]) -> None:
    """Write a file of a run with all texts redacted, in JSON inside of the strings, since characters in it are escaped."""
    if path.suffix in (".gz", ".jsonl"):
        with target.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw as file:
            for line in read_lines(path, left_out):
                with suppress(ValueError):  # the torn last line of a run that was killed
                    file.write(json.dumps(walked(parse_json(line), redaction.of_text)).encode() + b"\n")
    elif path.suffix == ".json":
        value = _value(path, left_out)
        if value is not None:
            target.write_text(json.dumps(walked(value, redaction.of_text), indent=1), "utf-8")
    else:
        raw_text = read_bytes(path, left_out)
        if raw_text is not None:
            target.write_text(redaction.of_text(raw_text.decode(errors="replace")), "utf-8")


def _value(path: Path, left_out: list[str]) -> Any:
    """Parse a JSON or YAML file; None if it is damaged."""
    raw = read_bytes(path, left_out, most=_MAX_YAML_BYTES if path.suffix == ".yaml" else None)
    if raw is None:
        return None
    try:
        return parse_json(raw) if path.suffix == ".json" else _yaml_value(raw)
    except (ValueError, yaml.YAMLError, RecursionError):
        left_out.append(f"{display_name(path)} is not readable and left out")
        return None


def _yaml_value(raw: bytes) -> Any:
    """Parse YAML without aliases, a few of which can expand without end, and without tags: a run writes neither."""
    for event in yaml.parse(raw, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError("it has aliases or tags")
    return yaml.safe_load(raw)
