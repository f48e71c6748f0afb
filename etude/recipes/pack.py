"""A run for somebody else: one file without weights, machine paths and secrets.

    etude report RUN --pack run.zip

Configuration, metrics, attempts, evaluations, result, card and a report made anew go in; checkpoints, weights and the command line stay. Of
the run's own values every absolute path is cut to its last part; in texts, those below the usual roots; what looks like a token of a known
service becomes `[secret]`. What a model or a data set wrote goes along as it is otherwise: read it before you give it away.
"""

import gzip
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from etude.errors import UserError
from etude.evaluation.report import write_report
from etude.outputs import STANDARD_OUTPUT, write_output

Clean = Callable[[str], str]
FILES = ("configuration.yaml", "environment.json", "metrics.jsonl", "timings.jsonl", "result.json", "model/README.md", "model/etude.yaml")
FOLDERS = ("evaluation", "attempts", "trees")
_ROOTS = "home|root|Users|Volumes|private|mnt|data|work|workspace|tmp|var|srv|opt|scratch|media|nfs|lustre|gpfs|export|content|kaggle"
_PATH = re.compile(rf"""(?<![\w./~-])(?:file://)?(?:~|/(?:{_ROOTS})(?=/))(?:/[^\s"'\\:,;<>|\]}})]+)+""")
_SECRET = re.compile(r"(?<![A-Za-z0-9])(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-|AKIA|wandb_)[A-Za-z0-9_-]{12,}")


def pack(run: Path, out: Path, *, replaces: bool = False) -> Path:
    """Write the run in `run` as a zip file and return its path; `replaces`: a file of that name too."""
    if not (run / "configuration.yaml").is_file():
        raise UserError(f"--pack: {run} holds no run: name the folder of a run, such as runs/quickstart")
    is_file = str(out) != STANDARD_OUTPUT and (out.is_file() or not out.exists())  # or a device, or a pipe
    if is_file and out.suffix != ".zip":
        raise UserError(f"--pack {out}: name a file that ends in .zip")
    if out.is_file() and not replaces:
        raise UserError(f"--pack {out}: exists already: name another file, or replace it with --force")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / run.resolve().name
        for path in _chosen(run):
            target = copy / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_cleaned(path))
        write_report([copy], copy / "report.html")
        packed = Path(scratch) / "packed"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(copy.rglob("*")):
                if path.is_file():
                    archive.write(path, Path(copy.name) / path.relative_to(copy))
        write_output(out, packed.read_bytes())
    return out


def _chosen(run: Path) -> Iterator[Path]:
    yield from (run / name for name in FILES if (run / name).is_file())
    for folder in FOLDERS:
        yield from sorted(path for path in (run / folder).glob("*") if path.is_file() and path.suffix in (".json", ".gz"))


def _cleaned(path: Path) -> bytes:
    """The file's content with every text in it cleaned: inside of JSON and YAML, where line breaks and letters are escaped."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.compress("".join(_lines(gzip.decompress(raw), without_places)).encode(), mtime=0)
    if path.suffix == ".jsonl":
        return "".join(_lines(raw, _without_any_path)).encode()
    if path.name == "environment.json":
        facts = {name: value for name, value in json.loads(raw).items() if name != "command"}
        return json.dumps(_walked(facts, _without_any_path), indent=1).encode()
    if path.suffix == ".json":
        return json.dumps(_walked(json.loads(raw), without_places), indent=1).encode()
    if path.suffix == ".yaml":
        return yaml.safe_dump(_walked(yaml.safe_load(raw), _without_any_path), sort_keys=False, allow_unicode=True).encode()
    return without_places(raw.decode(errors="replace")).encode()


def _lines(raw: bytes, clean: Clean) -> Iterator[str]:
    for line in raw.decode(errors="replace").splitlines():
        with suppress(ValueError):  # the torn last line of a run that was killed
            yield json.dumps(_walked(json.loads(line), clean)) + "\n"


def _walked(value: Any, clean: Clean) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(name)): _walked(inside, clean) for name, inside in value.items()}
    return [_walked(inside, clean) for inside in value] if isinstance(value, list) else value


def _without_any_path(text: str) -> str:
    """A setting or a fact, which is a path where it begins as one."""
    is_path = text.startswith(("/", "~/", "file://")) and len(text) > 1
    return without_places(Path(text.rstrip("/")).name if is_path else text)


def without_places(text: str) -> str:
    """The text with absolute paths cut to their last part, and tokens hidden.

    >>> without_places("path: /mnt/ann/sets/train.jsonl, ~/keys, key hf_abcdefghijklmnopqrst, 1/2 and a/b")
    'path: train.jsonl, keys, key [secret], 1/2 and a/b'
    """
    return _SECRET.sub("[secret]", _PATH.sub(lambda found: found[0].rstrip("/").rsplit("/", 1)[1], text))
