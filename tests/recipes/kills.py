"""Kill a small practice run with SIGKILL, resume it, and compare it with one that nobody disturbed, byte for byte.

    python tests/recipes/kills.py [KILLS] [SEED] [PART ...] [--key value ...]   settings, such as --search tree --learn.advantage treerl

A part is a set of settings by name, and each is tried: plain, alone (a majority vote calibrated on labelled tasks, own problems, a
curriculum, a rollback of what collapsed), diverse (losses, shaping, an entropy bonus and temperatures that change), kept (a gate that rolls
back), and adapt (a domain learned from text, in two stages).

Half of the kills come before a random write (file, line, rename or removal; a file or a line may be half written), the others at a random
time. Exit code 1 where a resumed run differs or samples again what was judged before the kill.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from forked import Forked

RUN = ["practice", "tiny", "--n", "60", "--warm_start.steps", "12", "--steps", "6", "--rollout.tasks_per_step", "6"]
RUN += ["--rollout.num_samples", "4", "--evaluation.n", "20", "--evaluation.pass_n", "5", "--evaluation.num_samples", "2"]
RUN += ["--save_steps", "2", "--machine.dtype", "float32"]
PARTS = {
    "plain": "",
    "alone": "--reward majority_vote --vote_calibration.n 6 --vote_calibration.every 2 --curriculum weakness "
    "--synthetic_tasks proposer --synthetic_tasks.max_new_tokens 24 "
    "--collapse.action rollback --collapse.window 2 --collapse.constant 0.3",
    "diverse": "--learn.loss clip_cov --learn.minibatches_per_epoch 2 --reward_shaping.method novelty --entropy_bonus.target 3 "
    "--temperature_schedule.end 1.3",
    "kept": "--retention.probe true --retention.n 4 --retention.text_tokens 100 --learn.optimizer.learning_rate 0.01 "
    "--gate.every 1 --gate.max_perplexity_rise 0 --gate.max_divergence 2 --gate.action lower_lr",
}
ADAPT = "adapt"
SAME = (
    "selection/selected.jsonl",
    "selection/selection.json",
    "inputs.json",
    "metrics.jsonl",
    "result.json",
    "gate_answers.json",
    "model/model.safetensors",
    "attempts",
    "evaluation",
    "checkpoints",
)

CHILD = """
import os, pathlib, shutil, signal, sys
import etude.training.checkpoints as checkpoints
from etude.cli import main
from etude.training.run_folder import RunFolder

at, run, count = int(sys.argv[1]), sys.argv[2], 0

def counted(owner, name, place, half=None):
    real = getattr(owner, name)
    def write(*arguments, **options):
        global count
        if run in str(arguments[place]):
            count += 1
            if count == at:
                if half:
                    half(*arguments)
                print(f"killed before write {count}, {name} {os.path.relpath(str(arguments[place]), run)}", flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(owner, name, write)

real_bytes = pathlib.Path.write_bytes

def half_line(folder, name, row):
    with (folder.path / name).open("a") as file:
        file.write('{"phase": "pract')

counted(pathlib.Path, "write_bytes", 0, lambda path, content: real_bytes(path, content[: len(content) // 2]))
counted(pathlib.Path, "rename", 0)
counted(pathlib.Path, "unlink", 0)
counted(os, "replace", 0)
counted(shutil, "rmtree", 0)
counted(checkpoints, "save_file", 1)
RunFolder.__str__ = lambda folder: str(folder.path)
counted(RunFolder, "append", 0, half_line)
status = main(sys.argv[3:])
print(f"writes {count}", flush=True)
sys.exit(status)
"""


def adaptation(scratch: Path) -> list[str]:
    """A domain in small: which town mines what, on pages and as questions; and the command that learns it."""
    metals, chance = ["iron", "gold", "zinc", "lead"], random.Random(0)
    facts = [(f"Town{number}", chance.randrange(4)) for number in range(30)]
    text = "The people of {0} mine {1}. And in {0} there is {1} in the hills and {1} in the river of {0}."
    rows = {
        "pages": [{"text": text.format(town, metals[metal])} for town, metal in facts],
        "questions": [{"question": f"What is in {town}?", "choices": metals, "answer": metals[m], "town": town} for town, m in facts],
    }
    for name, own in rows.items():
        (scratch / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    settings = {
        "command": ADAPT,
        "model": "tiny-random",
        "corpus": {"path": [str(scratch / "pages.jsonl")]},
        "general": {"path": [str(scratch / "pages.jsonl")]},
        "selection": {"method": "all", "workers": 0, "block_bytes": 500},
        "tasks": {"path": [str(scratch / "questions.jsonl")], "split_by": "town"},
        "study": {"tokens": 6000, "tasks_share": 0.2, "tokens_per_step": 400, "window_tokens": 64},
        "suite": {"questions": [str(scratch / "questions.jsonl")], "split_by": "town", "text_tokens": 200, "window_tokens": 64},
        "save_steps": 3,
        "machine": {"dtype": "float32"},
    }
    path = scratch / "towns.yaml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return [ADAPT, str(path)]


def start(folder: Path, run: list[str]) -> subprocess.Popen:
    """A run in an interpreter of its own."""
    command = [sys.executable, "-c", CHILD, "0", str(folder), *run, "--run", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fork(folder: Path, run: list[str], at: int = 0) -> Forked:
    """A run that dies before write `at`, where that is not 0."""
    return Forked(CHILD, [str(at), str(folder), *run, "--run", str(folder)], folder.parent)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything of a run that must not depend on when it was killed."""
    paths = [path for name in SAME for path in ([folder / name] if (folder / name).is_file() else (folder / name).rglob("*"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def judged(folder: Path) -> int:
    """The last step whose attempts are on disk."""
    kept = [*(folder / "ledger").glob("*.gz"), *(folder / "attempts").glob("*.gz")]
    return max((int(path.name[:5]) for path in kept), default=0)


def sampled_again(folder: Path, done: int, before: int) -> list[int]:
    """Steps after checkpoint `done` that were judged before the kill and yet are not from the ledger."""
    rows = [json.loads(line) for line in (folder / "timings.jsonl").read_text().splitlines()]
    return [row["step"] for row in rows if row["phase"] == "practice" and done < row["step"] <= before and "from_ledger" not in row]


def kill_once(folder: Path, run: list[str], at: int, seconds: float) -> str:
    """Start a run and kill it before write `at`, or, where that is 0, `seconds` after its folder appeared; returns where that was."""
    process = fork(folder, run, at)
    if not at:
        while not folder.exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    ended = process.wait()
    found = re.findall("killed before .*", ended.stdout)
    return found[-1] if found else f"killed after {seconds:.2f} s" if ended.returncode < 0 else "ended before the kill"


def main(part: str, more: list[str], kills: int, seed: int) -> int:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as scratch:
        run = [*(adaptation(Path(scratch)) if part == ADAPT else [*RUN, *PARTS[part].split()]), *more]
        whole = Path(scratch) / "whole"
        process = start(whole, run)
        while not whole.exists() and process.poll() is None:
            time.sleep(0.005)
        began = time.perf_counter()
        while not (whole / "result.json").exists() and process.poll() is None:
            time.sleep(0.005)
        took = time.perf_counter() - began
        writes = int(re.findall(r"writes (\d+)", process.communicate()[0])[-1])
        expected, wrong = contents(whole), 0
        print(f"{part}, undisturbed: {took:.1f} s, {writes} writes, {len(expected)} files to compare", flush=True)
        for number in range(kills):
            folder = Path(scratch) / f"killed-{number}"
            at = chance.randint(1, writes) if number % 2 == 0 else 0
            where = kill_once(folder, run, at, chance.uniform(0, took))
            is_finished = (folder / "result.json").exists()  # then it is not resumed
            before = 0 if is_finished else judged(folder)
            again = ["--resume"] if (folder / "configuration.yaml").exists() else []
            ended = fork(folder, [*run, *again]).wait()
            said = ended.stdout + ended.stderr
            lines = [line for line in said.replace(scratch + "/", "").splitlines() if "going on" in line]
            done = int((re.findall(r"practice: going on from step (\d+)", said) or ["0"])[-1])
            found = contents(folder)
            differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            twice = sampled_again(folder, done, before)
            outcome = f"differs in {differing}, samples steps {twice} again" if differing or twice else "equal"
            went_on = " | ".join(lines) or ("it had finished" if is_finished else "no step was done")
            print(f"{number + 1}: {where}; {went_on}; {outcome}", flush=True)
            wrong += bool(differing or twice)
        print(f"{kills - wrong} of {kills} resumed runs equal the undisturbed one")
    return min(wrong, 1)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:3] if argument.isdigit()]
    words = sys.argv[1 + len(numbers) :]
    parts, more = [word for word in words if word in (*PARTS, ADAPT)] or ["plain"], [word for word in words if word not in (*PARTS, ADAPT)]
    sys.exit(max(main(part, more, *(numbers + [20, 0][len(numbers) :])) for part in parts))
