"""A run for somebody else: one file without weights, machine paths and secrets.

    etude report RUN --pack run.zip

Configuration, metrics, attempts, evaluations, result, card and a report made anew go in; checkpoints, weights, the command line and the
host's name stay. Absolute paths are cut to their last part wherever they stand, what looks like a token of a known service becomes
`[secret]`. What a model or a data set wrote goes along as it is: read it before you give it away.
"""

import gzip
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from etude.errors import UserError
from etude.evaluation.report import write_report

FILES = ("configuration.yaml", "environment.json", "metrics.jsonl", "timings.jsonl", "result.json", "model/README.md", "model/etude.yaml")
FOLDERS = ("evaluation", "attempts")
_ROOTS = "home|root|Users|mnt|data|work|tmp|var|srv|opt|scratch|media|nfs"
_PATH = re.compile(rf"""(?<![\w./~-])(?:~|/(?:{_ROOTS})\b)(?:/[^\s"'\\:,;<>|\]}})]+)+""")
_SECRET = re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-|AKIA|wandb_)[A-Za-z0-9_-]{12,}")
_COMMAND = re.compile(r'^ "command": .*\n', re.MULTILINE)


def pack(run: Path, out: Path) -> Path:
    """Write the run in `run` as a zip file and return its path."""
    if not (run / "configuration.yaml").is_file():
        raise UserError(f"--pack: {run} holds no run: name the folder of a run, such as runs/quickstart")
    if out.suffix != ".zip":
        raise UserError(f"--pack {out}: name a file that ends in .zip")
    if out.exists():
        raise UserError(f"--pack {out}: exists already and is never overwritten: name another file")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / run.resolve().name
        for path in _chosen(run):
            target = copy / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_cleaned(path))
        write_report([copy], copy / "report.html")
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(out.name + ".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(copy.rglob("*")):
                if path.is_file():
                    archive.write(path, Path(copy.name) / path.relative_to(copy))
        partial.rename(out)
    return out


def _chosen(run: Path) -> Iterator[Path]:
    yield from (run / name for name in FILES if (run / name).is_file())
    for folder in FOLDERS:
        yield from sorted(path for path in (run / folder).glob("*") if path.is_file() and path.suffix in (".json", ".gz"))


def _cleaned(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.compress(without_places(gzip.decompress(content).decode(errors="replace")).encode(), mtime=0)
    text = content.decode(errors="replace")
    return without_places(_COMMAND.sub("", text) if path.name == "environment.json" else text).encode()


def without_places(text: str) -> str:
    """The text with absolute paths cut to their last part, and tokens hidden.

    >>> without_places("path: /home/ann/sets/train.jsonl, ~/keys, key hf_abcdefghijklmnopqrst, 1/2 and a/b")
    'path: train.jsonl, keys, key [secret], 1/2 and a/b'
    """
    return _SECRET.sub("[secret]", _PATH.sub(lambda found: found[0].rstrip("/").rsplit("/", 1)[1], text))
