"""Let a small practice run meet the faults that a machine, a file or a verifier may have: what a user reads, and that nothing is lost.

    python tests/recipes/faults.py [NAME ...]

Nothing is lost: a run that ends goes on with `--resume` to the bytes of one that met no fault.
Exit code 1 where that is not so, or where a fault is told in more than one sentence.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forked import Forked
from kills import RUN, contents, fork, start

COMMAND = "import sys\nfrom etude.cli import main\n{before}\nsys.exit(main(sys.argv[1:]))"
AT_STEP_3 = """

from etude.recipes.practice import Loop
real = Loop.update
def update(self, step, *rest):
    if step == 3:
        {happens}
    return real(self, step, *rest)
Loop.update = update
"""
KILLED = AT_STEP_3.format(happens="import os; os.kill(os.getpid(), 9)")
NO_MEMORY = AT_STEP_3.format(happens="import torch; torch.empty(10**15)")
VERIFIER = """
import os, time
from etude.tiny import letters

def tasks(split, n, seed):
    return ({{**row, "verifier": "mine.py:judge"}} for row in letters(split, n, seed))

def judge(text, task):
    if task.answer in "ab" and text[:1] == "c":
        {happens}
    return text == task.answer
"""


class Lost(Exception):
    """What a fault took that it should have left."""


def etude(folder: Path, *arguments: str, before: str = "") -> subprocess.CompletedProcess:
    return Forked(COMMAND.format(before=before), list(arguments), folder).wait()


def practice(folder: Path, *more: str, before: str = "") -> subprocess.CompletedProcess:
    return etude(folder, *RUN, "--run", "run", *more, before=before)


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one line on standard error with which a run refuses to go on."""
    lines = done.stderr.strip().splitlines()
    if done.returncode != 2 or not lines or not lines[-1].startswith("etude: ") or "Traceback" in done.stderr:
        raise Lost(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    return lines[-1]


def goes_on(folder: Path, whole: Path) -> None:
    done = practice(folder, "--resume")
    if done.returncode or contents(folder / "run") != contents(whole):
        raise Lost(f"the resumed run is another one: {done.stderr[-2000:]}")


def misbehaves(happens: str, counted: str) -> Callable[[Path, Path], str]:
    """A verifier that does something at a few answers: those are unscored, everything else is judged, the run finishes."""

    def fault(folder: Path, whole: Path) -> str:
        (folder / "mine.py").write_text(VERIFIER.format(happens=happens))
        done = practice(folder, "--tasks.function", "mine.py:tasks", "--timeout_seconds", "0.5")
        if done.returncode:
            raise Lost(done.stderr[-2000:])
        counts = json.loads((folder / "run" / "result.json").read_text())["feedback_counts"]
        if not 0 < counts[counted] < counts["judged"] / 4:
            raise Lost(f"unscored for another reason: {counts}")
        return next(line for line in done.stdout.splitlines() if line.startswith("feedback: ") and " have no score " in line)

    return fault


def truncated_checkpoint(folder: Path, whole: Path) -> str:
    practice(folder, before=KILLED)
    weights = folder / "run" / "checkpoints" / "step-00002" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    said = sentence(practice(folder, "--resume"))
    shutil.rmtree(weights.parent)
    goes_on(folder, whole)
    return said


def full_disk(folder: Path, whole: Path) -> str:
    needs = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={int(0.7 * needs)}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        return "left out: only root may mount a small disk"
    try:
        said = sentence(practice(folder))
        room = Path(shutil.copytree(folder, folder.with_name("room")))
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    goes_on(room, whole)
    return said


def no_memory(folder: Path, whole: Path) -> str:
    said = sentence(practice(folder, before=NO_MEMORY))
    goes_on(folder, whole)
    return said


def not_finite(folder: Path, whole: Path) -> str:
    """No resume helps here; the last checkpoint is whole."""
    said = sentence(practice(folder, "--learn.optimizer.learning_rate", "1e30"))
    done = etude(folder, "evaluate", "run/checkpoints/warm_start", "--recipe", "tiny", "--evaluation.n", "20")
    if done.returncode:
        raise Lost(done.stderr[-2000:])
    return said


def two_runs(folder: Path, whole: Path) -> str:
    first = fork(folder / "run", RUN)
    while not (folder / "run" / "configuration.yaml").exists() and first.poll() is None:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end before the second one asks
    try:
        second, resumed = sentence(practice(folder)), sentence(practice(folder, "--resume"))
    finally:
        os.kill(first.pid, signal.SIGCONT)
        first.wait()
    if contents(folder / "run") != contents(whole):
        raise Lost("the first run was disturbed")
    return f"{resumed} | without --resume: {second}"


AT_ONCE = 3
"""Faults that are tried side by side: they mostly wait, for verifiers to time out and processes to start."""
FAULTS: dict[str, Callable[[Path, Path], str]] = {
    "a verifier that hangs": misbehaves("time.sleep(600)", "timed_out"),
    "a verifier that crashes": misbehaves("os._exit(1)", "crashed"),
    "a verifier that takes all memory": misbehaves("bytearray(10**12)", "crashed"),
    "a full disk": full_disk,
    "out of memory": no_memory,
    "a gradient that is not finite": not_finite,
    "a truncated checkpoint": truncated_checkpoint,
    "two runs in one folder": two_runs,
}


def main(names: list[str]) -> int:
    names = names or list(FAULTS)
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(AT_ONCE) as pool:
        whole = Path(scratch) / "whole"
        start(whole, RUN).communicate()

        def found(number: int) -> tuple[str, str]:
            folder = Path(scratch) / str(number)
            folder.mkdir()
            try:
                return "nothing is lost", FAULTS[names[number]](folder, whole)
            except Lost as error:
                return "LOST", str(error)

        lost = 0
        for name, (outcome, said) in zip(names, pool.map(found, range(len(names))), strict=True):
            print(f"{name}: {outcome}\n    {said.replace(scratch + '/', '')}", flush=True)
            lost += outcome == "LOST"
    print(f"{len(names) - lost} of {len(names)} faults leave nothing lost")
    return min(lost, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
