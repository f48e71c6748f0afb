"""The folder of a run: its settings, inputs, logs, checkpoints and results, written to be shared and resumed.

configuration.yaml   the resolved configuration
environment.json     versions, hardware, threads, commit, command, fallbacks: facts that differ between machines; and the changes at every
                     resume
given/               tasks and models that were Python objects (etude.training.given)
inputs.json          fingerprints of the tasks, demonstrations, evaluation items and verifiers
metrics.jsonl        one line a step, only values that are deterministic for a seed
timings.jsonl        one line a step, clock times and throughput
attempts/00012.jsonl.gz   every attempt of a step with its reward and advantage
trees/00012.jsonl.gz the search trees of a step
evaluation/NAME.json a model's answers and metrics
checkpoints/NAME/    a Hugging Face folder with `learner.safetensors` (optimizer) and `progress.json` (checksums) beside the weights
model/               the final model, a plain Hugging Face folder
adapter/             its LoRA adapters, if it has any, in PEFT's format
base/                the adapters' base model, if only etude makes its weights (random ones, of GGUF)
result.json          the headline numbers
report.html          the report
ledger/              the attempts and rewards of steps that no checkpoint holds yet (etude.training.ledger)
lock                 held while a process writes the run

A folder that holds a run is never overwritten. `--resume` continues from the last checkpoint: rows of later steps are removed first, their
attempts stay in the ledger.
"""

import errno
import fcntl
import gzip
import json
import os
import platform
import shutil
import subprocess
import sys
import weakref
import zlib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from etude.errors import UserError
from etude.files import read_jsonl, write_atomically
from etude.fingerprints import checksums_of
from etude.renamed import is_removed, renamed_metrics, with_defaults
from etude.settings.configuration import flatten
from etude.settings.yaml_text import problem_of, read_yaml, write_yaml

_PACKAGES = ("etude", "torch", "transformers", "accelerate", "peft", "reasoning-gym", "math-verify", "numpy")

GIVEN = "given"
"""The folder of what were Python objects."""

CHANGEABLE = (
    *("machine.device", "machine.threads", "machine.kv_cache_tokens", "machine.max_tokens_per_microbatch"),
    *("max_unscored_share", "timeout_seconds", "isolate_verifiers"),
    "selection.workers",
    *(
        f"{who}.{name}"
        for who in ("judge", "writer", "grader")
        for name in ("url", "api_key_env", "timeout_seconds", "retries", "concurrency")
    ),
)
"""Settings that may change on resume: the machine's, which change numbers only by rounding; the address of the same model; and the
verifier's, if the run stopped because it did not answer.
"""


ROUNDING = ("processor", "gpu", "threads", "kernels", "versions.torch", "versions.transformers")
"""Facts of the environment that may change the rounding of numbers."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: weakref.finalize | None = None
        self._is_new = False
        self._is_resumed = False
        self._changed: dict[str, Any] = {}
        self._logs: dict[str, list[dict[str, Any]]] = {}

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a run that `--resume` can continue."""
        return (self.path / "configuration.yaml").exists()

    @classmethod
    def start(cls, path: Path, configuration: Mapping[str, Any], *, resume: bool, defaults: Mapping[str, Any] | None = None) -> "RunFolder":
        """Open a new run, or with `resume` an unfinished one of the same configuration. A new run writes nothing before `begin`.

        Only `CHANGEABLE` settings may differ; the environment records it. A run older than a setting began with its default, in `defaults`
        by dotted name.

        This process holds the run's lock until `release` or until it ends in any way.
        """
        run = cls(path)
        kept = path / "configuration.yaml"
        if resume:
            if not kept.exists():
                raise UserError(f"--resume: {path} holds no run; start one without --resume")
            run._changed = check_same(with_defaults(flatten(read_configuration(kept)), defaults or {}), configuration, path)
            if (run.read_json("result.json") or {}).get("status") == "finished":
                raise UserError(f"--resume: the run in {path} is finished; see {path / 'report.html'}")
            run.lock()
            run._is_resumed = True
            for left in (*path.glob("*.partial"), *path.glob("checkpoints/*.writing*")):  # left by a process killed while writing
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            return run
        if path.exists() and (not path.is_dir() or any(not _is_a_beginning(inside) for inside in path.iterdir())):
            raise _exists(path)
        run._is_new = True
        return run

    def begin(self, configuration: Mapping[str, Any], inputs: Mapping[str, str] | None = None, **facts: Any) -> list[str]:
        """Create the folder with its configuration, environment and `inputs` (fingerprints by name), unless they exist. On resume, record
        what changed; return sentences on changes that may affect rounding.

        Call it after all input has been read, so that a mistake there leaves no folder. Raises UserError if the inputs differ from those of
        the run.
        """
        if self._is_resumed:
            self.check_inputs(inputs or {})
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        if self._is_new and self.is_begun:  # another process was faster
            raise _exists(self.path)
        self._is_new = False
        if not self.is_begun:
            text = write_yaml(dict(configuration))
            write_atomically(self.path / "configuration.yaml", text)
        self.check_inputs(inputs or {})
        if not (self.path / "environment.json").exists():
            self.write_json("environment.json", environment() | facts)
            return []
        return self._resumed(environment() | facts) if self._is_resumed else []

    def _resumed(self, now: dict[str, Any]) -> list[str]:
        """Record what changed in the environment since the run began; return sentences on changes that may affect rounding."""
        found = self.read_json("environment.json")
        before, after = flatten(found), flatten(now)
        own = ("command", "changed_settings.")  # the settings' changes are told by themselves
        others = {name: value for name, value in after.items() if before.get(name) != value and not name.startswith(own)}
        found["resumed"] = [*found.get("resumed", []), others]
        if self._changed:
            found["changed_on_resume"] = found.get("changed_on_resume", {}) | self._changed
        self.write_json("environment.json", found)
        rounded = [f"{name} {before[name]} before, {after[name]} now" for name in ROUNDING if name in others and name in before]
        return [f"not to the same bytes as without the interruption: {'; '.join(rounded)}"] if rounded else []

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Store these fingerprints. Raises UserError if the run began with others."""
        before = self.read_json("inputs.json") or {}
        if others := [name for name in inputs if before.get(name, inputs[name]) != inputs[name]]:
            raise UserError(
                f"--resume: {' and '.join(others)} changed since the run in {self.path} began: resume with what it began with, or start "
                "another run"
            )
        if inputs.keys() - before.keys():
            self.write_json("inputs.json", before | dict(inputs))

    def let_be_repaired(self, beginning: str) -> None:
        """Accept changes on resume of the inputs whose names begin so; the old fingerprints stay recorded."""
        found = self.read_json("inputs.json") or {}
        kept = {f"{name}, before it was put right" if name.startswith(beginning) else name: told for name, told in found.items()}
        self.write_json("inputs.json", kept)

    def lock(self) -> None:
        """Make this process the only writer of the run."""
        if self._lock is not None:
            return
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):  # some network file systems have no locks
                os.close(descriptor)
                return
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(f"{self.path} is being written by {holder}: wait for its end, or name another folder with --run") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
        self._lock = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let other processes write to the run."""
        if self._lock is not None:
            self._lock()
            self._lock = None

    def write_json(self, name: str, value: Any) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Return the value of a JSON file; None if it is missing."""
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf8")) if path.exists() else None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}): remove it and resume, which makes it anew, or start another run") from error

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Add a line to a JSONL file."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        with (self.path / name).open("a", encoding="utf8") as file:
            file.write(line + "\n")
        if name in self._logs:
            self._logs[name].append(json.loads(line))  # parsed, so that a resumed run sees the same values

    def log_rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` or `timings.jsonl` so far: read once, then kept in memory."""
        if name not in self._logs:
            self._logs[name] = [renamed_metrics(row) for row in read_jsonl(self.path / name, needs=("phase", "step"))]
        return self._logs[name]

    def write_attempts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write_step("attempts", step, rows)

    def write_trees(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        self._write_step("trees", step, rows)

    def _write_step(self, folder: str, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        path = self.path / folder / f"{step:05d}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        write_atomically(path, gzip.compress(text.encode(), mtime=0))

    def read_attempts(self, step: int) -> list[dict[str, Any]]:
        """Return the rows that `write_attempts` wrote for a step; [] if there are none."""
        path = self.path / "attempts" / f"{step:05d}.jsonl.gz"
        try:
            return list(map(json.loads, gzip.decompress(path.read_bytes()).splitlines())) if path.exists() else []
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): remove it and resume, which goes on without these attempts") from error

    # ------------------------------------------------------------------ checkpoints

    def checkpoints(self, kind: str = "") -> list[Path]:
        """Return the folders of complete checkpoints whose names begin with `kind`, oldest first."""
        found = [path.parent for path in (self.path / "checkpoints").glob(f"{kind}*/progress.json") if path.parent.suffix != ".writing"]
        return sorted(found, key=lambda folder: read_progress(folder)["order"])

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / name

    def commit_checkpoint(self, partial: Path, name: str, progress: Mapping[str, Any], *, keep: int, spare: str | None = None) -> None:
        """Rename a written folder to the checkpoint `name`, with the checksums of its files. Then remove all but the last `keep` of its
        kind (`step-`) and `spare`.
        """
        write_atomically(partial / "progress.json", json.dumps({**progress, "sha256": checksums_of(partial)}))
        folder = self.checkpoint(name)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        self.prune(name.split("-")[0] + "-", keep=keep, spare=spare)

    def prune(self, kind: str, *, keep: int, spare: str | None = None) -> None:
        """Remove all checkpoints of a kind except the last `keep` and `spare`."""
        for old in self.checkpoints(kind)[:-keep]:
            if old.name != spare:
                shutil.rmtree(old)

    def cut_after(self, phase: str, step: int) -> str | None:
        """Remove what was written after `step` of `phase`, the last one with a checkpoint; return a sentence if earlier rows are missing.

        Raises UserError for a damaged line with others after it.
        """
        for name in ("metrics.jsonl", "timings.jsonl"):
            if (self.path / name).exists():  # rewritten in any case, since a kill leaves a torn last line
                kept = [row for row in self.log_rows(name) if row["phase"] != phase or row["step"] <= step]
                write_atomically(self.path / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
                self._logs[name] = kept
        for path in self.path.glob("attempts/*.jsonl.gz") if phase == "practice" else ():
            if (number := step_of(path)) is not None and number > step:
                path.unlink()
        there = {row["step"] for row in self.log_rows("metrics.jsonl") if row["phase"] == phase}
        lacking = [str(each) for each in range(1, step + 1) if each not in there]
        return f"metrics.jsonl lacks {phase} step {', '.join(lacking)}: the run goes on without these numbers" if lacking else None


def step_of(path: Path) -> int | None:
    """Return the step of a file such as `00012.jsonl.gz`; None for any other name, such as a copy that a program left."""
    number = path.name.removesuffix(".jsonl.gz")
    return int(number) if number.isdecimal() and number.isascii() else None


def _is_a_beginning(path: Path) -> bool:
    """Return whether this may be left by a process killed before it wrote its configuration."""
    return path.name in ("lock", GIVEN) or path.suffix == ".partial"


def _exists(path: Path) -> UserError:
    return UserError(f"{path} exists already and is never overwritten: go on with --resume, or name another folder with --run")


def read_progress(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint's progress: its place in the `order`, its `step` if it has one, and its files' `sha256`."""
    try:
        progress = json.loads((checkpoint / "progress.json").read_text())
        number = checkpoint.name.rpartition("-")[2]
        if number.isdecimal() and int(progress["step"]) != int(number):
            raise ValueError(f"progress.json is of step {progress['step']}")
        return {**progress, "order": int(progress["order"])}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise damaged(checkpoint, error) from error


def damaged(checkpoint: Path, error: Exception) -> UserError:
    said = f"no {error}" if isinstance(error, KeyError) else str(error)
    reason = (said.strip().splitlines() or [type(error).__name__])[0]
    return UserError(
        f"checkpoint {checkpoint} is damaged ({reason}): remove this folder and resume again, which goes on from the checkpoint before it"
    )


def environment() -> dict[str, Any]:
    """Return facts that differ between machines: versions, processor, commit, command."""
    import torch

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
        "commit": _commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the source tree that etude runs from, with "-dirty" appended if files differ; None for an installed package.

    A package installed inside somebody's repository does not count: git must know this very file.
    """
    here = Path(__file__)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no", "--", here.parents[2].as_posix())
    return f"{_git(here.parent, 'rev-parse', 'HEAD')}{'-dirty' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of a git command; None if it fails or there is no git."""
    try:
        found = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def may_change(name: str) -> bool:
    """Return whether a setting, of a run or of its adaptation, may change on resume (`CHANGEABLE`)."""
    return name.removeprefix("adaptation_settings.") in CHANGEABLE


def differing(kept: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the dotted names of settings in which two configurations differ, except removed settings."""
    before, after = flatten(kept), flatten(wanted)
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return [name for name in names if not is_removed(name, before.get(name))]


def read_configuration(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path.read_text(encoding="utf8"))
    except (yaml.YAMLError, ValueError) as error:
        problem = problem_of(error)[0] if isinstance(error, yaml.YAMLError) else str(error)
        raise UserError(f"{path} is damaged ({problem}): start another run") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged (it holds no settings): start another run")
    return values


def check_same(kept: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the changed machine settings. Raises UserError for any other difference."""
    before, after = flatten(kept), flatten(wanted)
    names = differing(kept, wanted)
    for name in names:
        if not may_change(name):
            raise UserError(
                f"--resume: the run in {path} was started with {name} = {before.get(name)!r}, now it is {after.get(name)!r}; "
                "resume with the same configuration, or start another run"
            )
    return {name: after.get(name) for name in names}
