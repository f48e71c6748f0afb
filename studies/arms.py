"""What practice is compared with, from the same warm start: the arms of the practice studies.

practice           policy gradient on the verifier's scores
random_reward      the same with random scores of the same rate: what updates alone do
imitation          imitation of own right attempts, the same tasks and attempts a step
longer_warm_start  more passes over the same demonstrations instead of practice, as many as the study says

Arms of one seed share the measurements of the base model and of the warm start, which are the same by construction.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.configuration import find_configuration, resolved
from etude.evaluation.statistics import paired_test, wilson_interval
from etude.recipes.practice import practice_named
from etude.recipes.settings import parse_practice
from etude.runs import RunFolder, read_jsonl
from etude.watching import Console
from studies.cells import Cell, Options

ARMS = ("practice", "random_reward", "imitation", "longer_warm_start")

_CHANGES: dict[str, list[str]] = {
    "practice": [],
    "random_reward": ["--feedback=random"],
    "imitation": ["--learn.method=imitation"],
    "longer_warm_start": ["--steps=0"],
}


def run_arm(recipe: str, arm: str, seed: int, chosen: Options, *, longer_steps: int, overrides: Sequence[str] = ()) -> Cell:
    """One cell: a practice run under `out/runs`; `longer_steps` is the length of the longer warm start."""
    changes = [*overrides, f"--seed={seed}", *_CHANGES[arm]]
    if arm == "longer_warm_start":
        changes.append(f"--warm_start.steps={longer_steps}")
    settings = parse_practice(find_configuration("practice", recipe), changes)
    folder = chosen.out / "runs" / f"{arm}-{seed}"
    if not folder.exists() and _share(chosen.out / "runs", folder, seed, shares_warm_start=arm != "longer_warm_start"):
        RunFolder(folder).begin(resolved(settings))
    start = time.perf_counter()
    result = RunFolder(folder).read_json("result.json")
    if result is None:
        result = practice_named(settings, recipe, run=folder, data=chosen.data, resume=folder.exists(), watcher=Console())
    seconds = time.perf_counter() - start
    cell = _cell(folder, result, seconds)
    for heavy in ("model", "checkpoints"):
        if arm != "practice" or heavy == "model":
            shutil.rmtree(folder / heavy, ignore_errors=True)
    return cell


def _share(runs: Path, folder: Path, seed: int, *, shares_warm_start: bool) -> bool:
    """Copy the stages that this arm has in common with the practice run of its seed, if that is there."""
    source = runs / f"practice-{seed}"
    if not (source / "result.json").exists() or source == folder:
        return False
    names = ["environment.json", "evaluation/base.json"]
    if shares_warm_start:
        names += ["evaluation/warm_start.json", "checkpoints/warm_start", "metrics.jsonl", "timings.jsonl"]
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / name).is_dir() else shutil.copyfile
        copy(source / name, target)
    return True


def _cell(folder: Path, result: Mapping[str, Any], seconds: float) -> Cell:
    rights = {}
    for model in ("base", "warm_start", "practice"):
        path = folder / "evaluation" / f"{model}.json"
        if path.exists():
            page = json.loads(path.read_text())
            rights[model] = {s["suite"]: "".join("1" if i["score"] == 1.0 else "0" for i in s["items"]) for s in page["suites"]}
    timings = read_jsonl(folder / "timings.jsonl")
    spent: dict[str, float] = {}
    for row in timings:
        total = sum(value for name, value in row.items() if name.endswith("_seconds"))
        spent[row["phase"]] = spent.get(row["phase"], 0.0) + total
    return {
        "run_seconds": round(seconds, 1),
        "training_seconds": {phase: round(value, 1) for phase, value in spent.items()},
        "evaluation": result["evaluation"],
        "tasks": result["tasks"],
        "right": rights,
    }


def reduce_arms(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row for each arm and suite, pooled over seeds: accuracy with interval, and the paired difference to the warm start."""
    rows = []
    practice = {cell["seed"]: cell for cell in cells if cell["id"] == "practice"}
    for arm in ("base", "warm_start", *ARMS):
        own = [cell for cell in cells if cell["id"] == (arm if arm in ARMS else "practice")]
        for suite in own[0]["right"]["base"] if own else ():
            model = arm if arm in ("base", "warm_start") else "practice"
            rows.append(_row(arm, suite, model, own, practice))
    return rows


def _row(arm: str, suite: str, model: str, own: Sequence[Cell], practice: Mapping[int, Cell]) -> dict[str, Any]:
    """`model` is the stage whose answers count; the warm start is the practice run's of the same seed."""
    right = "".join(cell["right"].get(model, cell["right"]["base"])[suite] for cell in own)
    low, high = wilson_interval(right.count("1"), len(right))
    found = [row for cell in own for row in cell["evaluation"] if row["suite"] == suite and row["model"] == model]
    row = {"id": arm, "set": suite, "n": len(right), "seeds": len(own), "accuracy": right.count("1") / len(right)}
    row |= {"accuracy_low": low, "accuracy_high": high}
    row["accuracy_each_seed"] = [round(r["accuracy"], 4) for r in found]
    for name in ("sampled_accuracy", "pass_at_8", "parsable", "baseline_constant"):
        values = [r[name] for r in found if name in r]
        if values:
            row[name] = sum(values) / len(values)
    row["best_baseline"] = max((value for r in found for value in r["baselines"].values()), default=0.0)
    paired = [cell for cell in own if cell["seed"] in practice and "warm_start" in practice[cell["seed"]]["right"]]
    if arm in ARMS and paired:
        before = "".join(practice[cell["seed"]]["right"]["warm_start"][suite] for cell in paired)
        after = "".join(cell["right"]["practice"][suite] for cell in paired)
        test = paired_test([c == "1" for c in before], [c == "1" for c in after])
        row |= {"gain": test.difference, "gain_low": test.difference_low, "gain_high": test.difference_high, "p_value": test.p_value}
        each = [_share_of(c["right"]["practice"][suite]) - _share_of(practice[c["seed"]]["right"]["warm_start"][suite]) for c in paired]
        row["gain_each_seed"] = [round(value, 4) for value in each]
        if arm != "practice":
            best = "".join(practice[cell["seed"]]["right"]["practice"][suite] for cell in paired)
            ahead = paired_test([c == "1" for c in after], [c == "1" for c in best])
            row |= {"practice_ahead": ahead.difference, "practice_ahead_low": ahead.difference_low, "practice_ahead_p": ahead.p_value}
        phases = [cell["training_seconds"] for cell in own]
        row["training_seconds"] = round(sum(sum(p.values()) for p in phases) / len(phases), 1)
    return row


def _share_of(bits: str) -> float:
    return bits.count("1") / len(bits)
