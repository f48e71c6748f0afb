"""Practice runs from the same warm start, compared: the arms of a study, and those of the studies of practice itself.

practice           policy gradient on the verifier's scores
random_reward      the same with random scores of the same rate, as many steps or as much time as practice has: what updates alone do
imitation          imitation of own right attempts, the same tasks and attempts a step
longer_warm_start  more passes over the same demonstrations instead of practice, as many as the study says

Arms of one seed share the measurements of the base model and of the warm start, which are the same by construction, as long as their run
folders are there. An arm that runs elsewhere later makes them again; another processor rounds otherwise, so its warm start may differ.

Seeds may have items of their own (a family draws other ones) or answer the same ones (a file). Accuracy is the mean over items of the
share of seeds that were right; `_low`, `_high` and `_p` are over items, so that three answers to one item do not count as three items.
They say how sure these runs' numbers are. How much a run differs from another stands in `_each_seed`, with the interval over runs in
`_run_low` and `_run_high`, by which claims are judged (`experiments.runs`). `training_seconds` is the median of the seeds, since something
else may have run beside one of them.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from etude.console.reporter import Console
from etude.evaluation.statistics import mean_interval, shares_interval, sign_flip_test
from etude.files import read_jsonl
from etude.recipes.practice import practice_named
from etude.renamed import renamed_metrics, with_defaults
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, flatten, to_plain_values
from etude.training.parse import parse_practice, practice_defaults
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from experiments.cells import Cell, Options, refuse_others
from experiments.divergence import divergence_of
from experiments.measures import with_ends
from experiments.runs import over_runs

Changes = Mapping[str, Mapping[str, Any]]
"""Arms, and which settings of the recipe each has otherwise."""

CHANGES: Changes = {
    "practice": {},
    "random_reward": {"reward": "random"},
    "imitation": {"learn.method": "imitation"},
    "longer_warm_start": {"steps": 0},
}
ARMS = tuple(CHANGES)
TINY_RUN: dict[str, Any] = {
    "n": 60,
    "warm_start.steps": 20,
    "steps": 3,
    "rollout.tasks_per_step": 6,
    "rollout.num_samples": 4,
    "evaluation.n": 20,
    "evaluation.pass_n": 5,
    "evaluation.num_samples": 2,
}
"""A practice run of a second, of the recipe `tiny`: it is tried, and measures nothing."""
SAMPLED = {
    "greedy_on_sampled": "greedy, tasks sampled",
    "sampled_accuracy": "sampled",
    "majority_at_8": "majority@8",
    "majority_at_32": "majority@32",
    "pass_at_8": "pass@8",
    "pass_at_32": "pass@32",
}
"""Measures on the tasks that are sampled, of which a cell keeps a number a model and suite, and their heads in tables."""
TINY = {"steps": 6, "rollout.tasks_per_step": 6, "evaluation.n": 50, "evaluation.pass_n": 10}
"""What a cell of a study's tiny form has otherwise: it is tried, and measures nothing."""


def settings_of(recipe: str, changes: Mapping[str, Any]) -> PracticeSettings:
    """Return the settings of a practice recipe, by its name or path, with changes. They are kept: a study asks for them more than once."""
    return _parsed(find_configuration("practice", recipe), *arguments_from(changes))


@cache
def _parsed(path: Path, *arguments: str) -> PracticeSettings:
    return parse_practice(path, arguments)


@dataclass(frozen=True)
class Arms:
    """The cells of a practice study: arms of one recipe."""

    recipe: str
    steps: Mapping[str, int]
    """How many steps an arm makes where it takes practice's time with another number of them: updates of the longer warm start; steps of
    random scores, where that is to be so, since they leave no group without signal to drop."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    changes: Changes = field(default_factory=lambda: CHANGES)
    shares: bool = field(default=True, kw_only=True)
    """Whether arms of a seed share the measurements before practice, and the warm start: not where they differ in how they are measured."""
    more: Callable[[RunFolder], Cell] = field(default=lambda _: {}, kw_only=True)
    """What else a cell keeps of its finished run, whose model is still there."""

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return to_plain_values(self._settings(arm, seed))

    def defaults(self) -> dict[str, Any]:
        return practice_defaults()

    def _settings(self, arm: str, seed: int) -> PracticeSettings:
        changes = {**self.overrides, "seed": seed, **self.changes[arm]}
        if arm in self.steps:
            changes["warm_start.steps" if arm == "longer_warm_start" else "steps"] = self.steps[arm]
        return settings_of(self.recipe, changes)

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Compute a cell: a practice run under `out/runs`, resumed or only read where it is there already."""
        settings = self._settings(arm, seed)
        runs = {other: chosen.out / "runs" / f"{other}-{seed}" for other in self.changes}
        for other, path in runs.items():
            check_run(path, self.defaults(), partial(self.settings, other, seed))
        folder = runs[arm]
        if self.shares and not folder.exists():
            share(runs, arm, to_plain_values(settings))
        result = run_of(settings, self.recipe, folder, chosen.data)
        cell = cell_of(folder, result) | divergence_of(settings, folder, chosen.data) | self.more(RunFolder(folder))
        shutil.rmtree(folder / "model", ignore_errors=True)
        for checkpoint in (folder / "checkpoints").glob("*"):
            if checkpoint.name != "warm_start":
                shutil.rmtree(checkpoint)
        return cell


def run_of(settings: PracticeSettings, recipe: str, folder: Path, data: Path | None) -> dict[str, Any]:
    """Return the result of a run: one that is there, is resumed, or is made; its model is in `folder / "model"`."""
    check_run(folder, practice_defaults(), partial(to_plain_values, settings))
    result = RunFolder(folder).read_json("result.json")
    if result is None:
        begun = (folder / "configuration.yaml").exists()
        result = practice_named(settings, recipe, run=folder, data=data, resume=begun, reporter=Console())
    return result


def steps_of(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of a run's steps of practice."""
    return [renamed_metrics(row) for row in read_jsonl(folder / "metrics.jsonl") if row["phase"] == "practice"]


def check_run(folder: Path, defaults: Mapping[str, Any], settings: Callable[[], Mapping[str, Any]]) -> None:
    """Raise SystemExit where a run of other settings is there; `settings` is called where there is a run."""
    kept = folder / "configuration.yaml"
    if kept.exists():
        before = with_defaults(flatten(yaml.safe_load(kept.read_text())), defaults)
        refuse_others(f"{folder} was run", before, settings(), "remove it to run it again")


def share(runs: Mapping[str, Path], arm: str, settings: Mapping[str, Any]) -> None:
    """Begin the run of `arm` with the stages that it has in common with a finished run of its seed, if there is one; by one rename."""
    finished = [path for path in runs.values() if (path / "result.json").exists()]
    if not finished:
        return
    same = [path for path in finished if _begins_alike(path, settings)]
    source = (same or finished)[0]
    partial = begin_like(source, runs[arm], settings)
    names = ["evaluation/base.json"]
    if same:
        names += ["evaluation/warm_start.json", "checkpoints/warm_start"]
        for log in ("metrics.jsonl", "timings.jsonl"):
            rows = [row for row in read_jsonl(source / log) if row["phase"] != "practice"]
            (partial / log).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for name in filter(lambda name: (source / name).exists(), names):
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / name).is_dir() else shutil.copyfile
        copy(source / name, partial / name)
    partial.rename(runs[arm])


def _begins_alike(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether the run in a folder has these settings' warm start."""
    kept: dict[str, Any] = yaml.safe_load((folder / "configuration.yaml").read_text())
    return json.dumps(kept["warm_start"], sort_keys=True) == json.dumps(settings["warm_start"], sort_keys=True)


def begin_like(source: Path, folder: Path, settings: Mapping[str, Any]) -> Path:
    """Begin a run with what `source` began with, in a folder beside `folder`: to be filled, and then renamed to it."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    facts = RunFolder(source).read_json("environment.json")
    begun = RunFolder(partial)
    begun.begin(settings, **{name: facts[name] for name in ("precision", "device", "weights")})
    begun.release()
    return partial


def cell_of(folder: Path, result: Mapping[str, Any]) -> Cell:
    """Return what a run found: for each suite the items' keys, and for each model which it answered rightly, as 0s and 1s; the same, as
    `thought`, behind a thought of each length, where that was measured.

    Commit and hardware are those that the run began with.
    """
    items, right = {}, {}
    thought: dict[str, dict[str, list[str]]] = {}
    for path in sorted((folder / "evaluation").glob("*.json")):
        suites = json.loads(path.read_text())["suites"]
        right[path.stem] = {page["suite"]: "".join("1" if item["score"] == 1.0 else "0" for item in page["items"]) for page in suites}
        behind = {page["suite"]: _behind_thoughts(page["items"]) for page in suites if "thought" in page["row"]}
        thought |= {path.stem: behind} if behind else {}
        items = {page["suite"]: " ".join(item["task"] for item in page["items"]) for page in suites}
    spent: Counter[str] = Counter()
    for row in read_jsonl(folder / "timings.jsonl"):
        spent[row["phase"]] += sum(value for name, value in row.items() if name.endswith("_seconds"))
    steps = steps_of(folder)
    facts = RunFolder(folder).read_json("environment.json")
    where = [facts["processor"], f"{facts['threads']} threads", facts["gpu"] if facts["device"] != "cpu" else None, facts["precision"]]
    return {
        "commit": facts["commit"],
        "hardware": ", ".join(filter(None, where)),
        "training_seconds": {phase: round(value, 1) for phase, value in spent.items()},
        "sampled_tokens": sum(row["sampled_tokens"] for row in steps),
        "evaluation": result["evaluation"],
        "tasks": result["tasks"],
        "items": items,
        "right": right,
        **({"thought": thought} if thought else {}),
    }


def _behind_thoughts(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a string of 0s and 1s for each length of thought."""
    return ["".join("1" if score == 1.0 else "0" for score in scores) for scores in zip(*(item["thought"] for item in items), strict=True)]


# ---------------------------------------------------------------------- from cells to rows


def all_there(rows: Sequence[Mapping[str, Any]], seeds: int, arms: Sequence[str] = ARMS) -> bool:
    """Return whether every arm has all its seeds."""
    return all(max((row["seeds"] for row in rows if row["id"] == arm), default=0) >= seeds for arm in arms)


def reduce_arms(
    cells: Sequence[Cell], arms: Sequence[str] = ARMS, baseline: str = "practice", start: str = "warm_start"
) -> list[dict[str, Any]]:
    """Reduce cells to a row for each arm and suite, pooled over seeds: accuracy, and the paired difference to the `start` (`gain`).

    That is the warm start which the arm went on from (of the longer warm start, the baseline's), or the model as it came (`base`). Arms are
    compared with the baseline (`BASELINE_ahead`). Both have an interval over items and one over runs, and stand for sampled answers too
    (`pass_at_8_gain`), over runs.
    """
    others = {cell["seed"]: cell for cell in cells if cell["id"] == baseline}
    rows = []
    for arm in (*dict.fromkeys(("base", start)), *arms):
        own = [cell for cell in cells if cell["id"] == (arm if arm in arms else baseline)]
        suites = own[0]["items"] if own else ()
        rows += [_row(arm, suite, own, others, baseline, start, is_arm=arm in arms) for suite in suites]
    return rows


def _row(
    arm: str, suite: str, own: Sequence[Cell], others: Mapping[int, Cell], baseline: str, first: str, *, is_arm: bool
) -> dict[str, Any]:
    model = "practice" if is_arm else arm
    right = right_of(own, model, suite)
    row: dict[str, Any] = {"id": arm, "set": suite, "n": len(right), "seeds": len(own)}
    shares = [_share_of(bits) for bits in right.values()]
    row |= with_ends("accuracy", _share_of(shares), shares_interval(shares))
    row["accuracy_each_seed"] = [round(_accuracy(cell, model, suite), 4) for cell in own]
    found = [row for cell in own for row in cell["evaluation"] if row["suite"] == suite and row["model"] == model]
    for name in (*SAMPLED, "pass_n", "parsable", "baseline_constant"):
        values = [value for r in found if (value := _measured(r, name)) is not None]
        if values:
            row[name] = sum(values) / len(values)
    row["best_baseline"] = max((value for r in found for value in r["baselines"].values()), default=0.0)
    paired = [cell for cell in own if cell["seed"] in others]
    begun = paired if arm == "longer_warm_start" else own
    if is_arm and begun:
        start = [others[cell["seed"]] if arm == "longer_warm_start" else cell for cell in begun]
        row |= difference("gain", right_of(start, first, suite), right_of(begun, "practice", suite))
        row |= _runs("gain", suite, [(cell, first) for cell in start], [(cell, "practice") for cell in begun])
        if arm != baseline and paired:
            same_seeds = [others[cell["seed"]] for cell in paired]
            row |= difference(f"{baseline}_ahead", right_of(paired, "practice", suite), right_of(same_seeds, "practice", suite))
            row |= _runs(f"{baseline}_ahead", suite, *([(cell, "practice") for cell in each] for each in (paired, same_seeds)))
        row["training_seconds"] = round(median(sum(cell["training_seconds"].values()) for cell in own), 1)
        for name in ("sampled_tokens", "entropy", "divergence"):
            measured = [cell[name] for cell in own if cell.get(name) is not None]
            if measured:
                row[name] = fmean(measured)
    return row


def _runs(name: str, suite: str, before: Sequence[tuple[Cell, str]], after: Sequence[tuple[Cell, str]]) -> dict[str, Any]:
    """Return the differences of every seed between models of cells, with their interval over runs; of sampled answers, too, with a mean."""
    found = over_runs(name, [_accuracy(*own, suite) - _accuracy(*its, suite) for its, own in zip(before, after, strict=True)])
    for measure in SAMPLED:
        each = [[_measured(_evaluated(*one, suite), measure) for one in pair] for pair in zip(before, after, strict=True)]
        values = [own - its for its, own in each if its is not None and own is not None]
        if len(values) == len(each):
            found |= {f"{measure}_{name}": fmean(values), **over_runs(f"{measure}_{name}", values)}
    return found


def _evaluated(cell: Cell, model: str, suite: str) -> Mapping[str, Any]:
    return next((row for row in cell["evaluation"] if row["suite"] == suite and row["model"] == model), {})


def _measured(row: Mapping[str, Any], name: str) -> float | None:
    """Return a measure of a row of `evaluation`; pass@k may stand in its curve."""
    value: float | None = row.get(name, row.get("pass_curve", {}).get(name.removeprefix("pass_at_")))
    return value


def right_of(cells: Sequence[Cell], model: str, suite: str) -> dict[str, list[int]]:
    """Return every item's answers over the seeds that had it: 1 where right."""
    found: dict[str, list[int]] = {}
    for cell in cells:
        for key, bit in zip(cell["items"][suite].split(), _bits(cell, model, suite), strict=True):
            found.setdefault(key, []).append(int(bit))
    return found


def _bits(cell: Cell, model: str, suite: str) -> str:
    return cell["right"][model][suite]


def _accuracy(cell: Cell, model: str, suite: str) -> float:
    return _share_of([int(bit) for bit in _bits(cell, model, suite)])


def _share_of(bits: Sequence[float]) -> float:
    return sum(bits) / len(bits)


def difference(name: str, before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return the paired difference over items, with its bootstrap interval and its exact sign-flip p-value."""
    pairs = [(before[key], after[key]) for key in before]
    values = [_share_of(own) - _share_of(its) for its, own in pairs]
    found = with_ends(name, _share_of(values), mean_interval(values))
    return found | {f"{name}_p": sign_flip_test([sum(own) - sum(its) for its, own in pairs])}
