"""Knowledge first? A textbook and its questions in several orders, at equal tokens, then the same practice on its terms.

    python -m studies.order --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

knowledge_then_tasks     text, then solved questions mixed with text: the recipe `anatomy_practice` as it ships
mixed                    the same tokens of each source in one stage
tasks_then_knowledge     the two stages the other way round
tasks_only               solved questions alone, as many tokens, again and again
raw                      the same practice from the model as it came
passages                 knowledge_then_tasks with passages on the same solved questions instead of the plain ones: a screen, one seed
attempts                 the same with passages of the model's own verified attempts: a screen, one seed
mix_25, mix_75           solved questions a quarter, or three quarters, of the stage of tasks, where the recipe has half: a screen, one seed

Passages are made by rule, or of own attempts: no other model writes them, so that nothing is distilled. Solved tasks are of two groups,
questions with choices and open ones, of sections that are not asked later; practice asks for the terms of definitions, of the same
sections. Every order reads as many tokens, in as many updates but for one or two; warm start and practice are the same. What belongs to
stages comes with them: the rate falls to 0 over each, a second one's from half the first's. `base` and `warm_start` are models of the first
arm's runs. What an order measures before it learns is measured once, by the first, as long as its run is there.

Claims, each with its rule: (1) knowledge_then_tasks adds at least 6 points to the domain's questions with choices, by likelihood, and (2)
loses at most 1 point on far questions; (3) behind practice it finds more of the terms of the test sections than each other order. Each is
judged by runs (`experiments.runs`), until 2026-12-02 by pooled means and intervals over terms. All three hold, or the study's claim does
not. Seeds 80 to 82; settings were chosen on the sections of dev.
"""

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from matplotlib.figure import Figure

from etude.console.reporter import Console
from etude.recipes.adapt import adapt_named
from etude.recipes.adapt_settings import AdaptSettings, adapt_defaults
from etude.recipes.knowledge_first import parse_adaptation
from etude.settings.configuration import flatten, to_plain_values
from etude.training.parse import practice_defaults
from etude.training.run_folder import RunFolder
from etude.training.settings import PracticeSettings
from experiments.arms import begin_like, cell_of, check_run, reduce_arms, run_of, settings_of, steps_of
from experiments.cells import Cell, Options, compute
from experiments.figures import list_rows, save
from experiments.measures import Verdict, all_hold, lacking, mean_difference, undecided
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Changed, Found, Study, compared
from experiments.tables import Column, Row, each_over_runs, interval, intervals, name_of, percent, points, seeds_of, table, value

CLAIM = (
    "text first, then solved tasks: >= 6 points on the domain's questions with choices, <= 1 point lost on far ones, and behind the "
    "same practice more terms known than in every other order"
)
SEEDS = (80, 81, 82)
BASELINE = "knowledge_then_tasks"
ORDERS = (BASELINE, "mixed", "tasks_then_knowledge", "tasks_only")
CHANGES: dict[str, dict[str, Any]] = {
    **{order: {"study.order": order} for order in ORDERS},
    "passages": {"study.task_format": "passages"},
    "attempts": {
        "study.task_format": "passages",
        "writer.how": "attempts",
        "writer.temperature": 1.0,
        "writer.attempts": 4,
        "writer.max_new_tokens": 64,
    },
    "mix_25": {"study.mixing": 0.25},
    "mix_75": {"study.mixing": 0.75},
}
ARMS = (*ORDERS, "raw", "passages", "mix_25", "mix_75", "attempts")
SCREENED = ("passages", "mix_25", "mix_75", "attempts")
PARTS = ("choices", "cloze", "open", "near", "far", "text")
MODELS = {"base": "before", "warm_start": "warm start", "practice": "practice"}
GAIN, LOSS = 0.06, 0.01


@dataclass(frozen=True)
class Orders:
    """A cell for every order and seed: one run of the recipe."""

    recipe: str

    def _settings(self, arm: str, seed: int) -> PracticeSettings:
        changes: dict[str, Any] = {"seed": seed}
        changes |= {"adaptation": None} if arm == "raw" else {"adaptation_settings": CHANGES[arm]}
        return settings_of(self.recipe, changes)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        practice = self._settings(arm, seed)
        adaptation = parse_adaptation(practice)
        own = to_plain_values(practice) | {"adaptation": None, "adaptation_settings": {}}  # which stand in full beside it
        return {"practice": own, "adaptation": to_plain_values(adaptation) if adaptation else adapt_defaults()}  # which raw has no use for

    def defaults(self) -> dict[str, Any]:
        return flatten({"practice": practice_defaults(), "adaptation": adapt_defaults()})

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Make the recipe's adaptation under `out/adapted`, whose model is kept, and its practice under `out/runs`; each is resumed or only
        read where it is there already.
        """
        settings = self._settings(arm, seed)
        data = chosen.out / "sets" if chosen.is_tiny else chosen.data
        if adaptation := parse_adaptation(settings):
            adapted = chosen.out / "adapted" / f"{arm}-{seed}"
            self._adapt(adaptation, adapted, data)
            settings = replace(settings, adaptation=None, adaptation_settings={}, model=str(adapted / "model"))
        folder = chosen.out / "runs" / f"{arm}-{seed}"
        result = run_of(settings, Path(self.recipe).stem, folder, data)
        for weights in ("model", "checkpoints"):
            shutil.rmtree(folder / weights, ignore_errors=True)
        steps = steps_of(folder)
        cell = cell_of(folder, result) | {"signal": [round(1 - row["groups_without_signal"] / row["groups"], 4) for row in steps]}
        return cell | (knowledge_of(adapted) if adaptation else {})

    def _adapt(self, settings: AdaptSettings, folder: Path, data: Path | None) -> None:
        check_run(folder, adapt_defaults(), lambda: to_plain_values(settings))
        if RunFolder(folder).read_json("result.json") is None:
            if not folder.exists():
                begin_measured(folder, settings)
            is_begun = (folder / "configuration.yaml").exists()
            adapt_named(settings, folder.name, run=folder, data=data, resume=is_begun, reporter=Console())
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def begin_measured(folder: Path, settings: AdaptSettings) -> None:
    """Begin an adaptation with what another one beside it measured of the same model before it learned, if there is one."""
    own = to_plain_values(settings)
    for measured in sorted(folder.parent.glob("*/evaluation/base.json")):
        source = measured.parents[1]
        kept = yaml.safe_load((source / "configuration.yaml").read_text())
        if all(kept[name] == own[name] for name in ("model", "suite", "machine")):
            partial = begin_like(source, folder, own)
            (partial / "evaluation").mkdir()
            shutil.copyfile(measured, partial / "evaluation" / measured.name)
            partial.rename(folder)
            return


def knowledge_of(folder: Path) -> dict[str, Any]:
    """Return what was measured before and after an adaptation, and what it read."""
    result = RunFolder(folder).read_json("result.json")
    kept = ("part", "name", "n", "value", "nats", "bits", "each", "windows")
    rows = {when: [{name: row[name] for name in kept if name in row} for row in result[when]] for when in ("before", "after")}
    return {"stages": result["stages"], **rows}


# ---------------------------------------------------------------------- from cells to rows


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to the rows of practice, with what the adaptation before it changed; every arm is compared with the baseline."""
    there = [arm for arm in ARMS if any(cell["id"] == arm for cell in cells)]
    rows = reduce_arms(cells, there, BASELINE if BASELINE in there else there[0]) if there else []
    for row in rows:
        own = [cell for cell in cells if cell["id"] == row["id"]]
        if own:
            row |= _explored(own)
            for part in PARTS if "before" in own[0] else ():
                row |= _change(part, own)
    return rows


def _explored(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return what practice found: right answers and pass@k before the warm start, after it and after
    practice, and the share of groups with signal in the first and the second half of the steps.
    """
    found: dict[str, Any] = {}
    for model in MODELS:
        of_model = [_model_row(cell, model) for cell in cells]
        found[f"{model}_right"] = fmean(row["accuracy"] for row in of_model)
        found[f"{model}_found"] = fmean(list(row["pass_curve"].values())[-1] for row in of_model)
    halves = [(cell["signal"][: len(cell["signal"]) // 2], cell["signal"][len(cell["signal"]) // 2 :]) for cell in cells]
    return found | {f"signal_{name}": fmean(fmean(half[place]) for half in halves) for place, name in enumerate(("first", "last"))}


def _model_row(cell: Cell, model: str) -> dict[str, Any]:
    return next(row for row in cell["evaluation"] if row["model"] == model)


def _change(part: str, cells: Sequence[Cell]) -> dict[str, Any]:
    """Compare a part before and after, over its questions: each with the mean of the seeds, so that an interval counts it once."""
    found: dict[str, list[list[float]]] = {
        when: [[value for row in _own_rows(cell[when], part) for value in _values(row)] for cell in cells] for when in ("before", "after")
    }
    before, after = ([fmean(values) for values in zip(*found[when], strict=True)] for when in ("before", "after"))
    if not before:
        return {}
    each = [fmean(now) - fmean(then) for then, now in zip(found["before"], found["after"], strict=True)]
    change = {"n": len(before), "before": fmean(before), "after": fmean(after)} | mean_difference("gain", before, after)
    return {f"{part}_{name}": value for name, value in (change | over_runs("gain", each)).items()}


def _own_rows(rows: Sequence[Mapping[str, Any]], part: str) -> list[Mapping[str, Any]]:
    """Return the rows of a part, one a file; the row of all files together would count them twice."""
    own = [row for row in rows if row["part"] == part]
    return own if len(own) == 1 else [row for row in own if row["name"] != "all questions"]


def _values(row: Mapping[str, Any]) -> list[float]:
    """Return for each question whether it was answered rightly; for open answers nats a byte, for text nats a token of each window."""
    return [float(bit) for bit in row["bits"]] if "bits" in row else row.get("each", row.get("windows", []))


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claims by the rows alone."""
    found = {row["id"]: row for row in rows}
    if missing := lacking(found, ORDERS, len(SEEDS)):
        return undecided(missing)
    own, leads = found[BASELINE], {arm: found[arm][f"{BASELINE}_ahead_each_seed"] for arm in ORDERS[1:]}
    choices, far = own["choices_gain_each_seed"], own["far_gain_each_seed"]
    parts = {
        f"choices >= {100 * GAIN:.0f} points ({in_points(choices)})": is_above(choices, GAIN),
        f"far >= {-100 * LOSS:.0f} ({in_points(far)})": is_above(far, -LOSS),
        **{f"ahead of {arm} ({in_points(each)})": is_above(each) for arm, each in leads.items()},
    }
    return all_hold(parts)


CHANGED = {
    "choices": ("questions with choices", points),
    "cloze": ("terms", points),
    "open": ("open questions, nats a byte", "{:+.3f}".format),
    "near": ("near questions", points),
    "far": ("far questions", points),
    "text": ("general text, nats a token", "{:+.3f}".format),
}
"""How a table calls the parts of what is known, and writes their changes."""


def show(rows: Sequence[Row]) -> str:
    """Write two tables: what each order changed by likelihood, and what practice made of it."""
    own = [row for row in rows if "signal_first" in row]
    shown = [part for part in CHANGED if any(f"{part}_gain" in row for row in own)]
    order = Column("order", lambda row: name_of(row) + (f" ({seeds_of([row])})" if row["seeds"] < own[0]["seeds"] else ""))
    columns = [order, *(Column(CHANGED[part][0], intervals(f"{part}_gain", CHANGED[part][1])) for part in shown)]
    counts = ", ".join(f"{own[0][f'{part}_n']:,} {CHANGED[part][0].split(',')[0]}" for part in shown)
    counts = counts.replace("general text", "pieces of general text")
    first = table(
        [row for row in own if "choices_gain" in row],
        columns,
        f"{counts}; {seeds_of(own)}; 95 % intervals over these, then over seeds (t).",
    )
    columns = [
        order,
        Column("before", value("base_right", percent)),
        Column("warm start", value("warm_start_right", percent)),
        Column("practice", interval("accuracy", percent)),
        Column("gain [items]", interval("gain", points)),
        Column("gain per seed [runs]", each_over_runs("gain", points)),
        *(Column(f"pass@8 {said}", value(f"{model}_found", percent)) for model, said in MODELS.items()),
        Column("groups with signal", lambda row: f"{percent(row['signal_first'])} to {percent(row['signal_last'])}"),
        Column("tokens sampled", value("sampled_tokens", "{:,.0f}".format)),
        Column(f"{BASELINE.replace('_', ' ')} minus arm [items]", interval(f"{BASELINE}_ahead", points), needs=f"{BASELINE}_ahead"),
        Column("per seed [runs]", each_over_runs(f"{BASELINE}_ahead", points), needs=f"{BASELINE}_ahead"),
    ]
    below = (
        f"{own[0]['n']:,} items, answered greedily, {seeds_of(own)}; 95 % intervals: over items, [runs] over seeds (t), which have each "
        "item as often as it stands in the file; halves of the steps."
    )
    return f"{first}\n{table(own, columns, below)}"


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: for each arm the change of the domain's questions, cloze and far questions, and accuracy before and behind practice."""
    own = [row for row in rows if row["id"] in ARMS]
    panels = [
        ("choices", "questions with choices"),
        ("cloze", "terms of the glossary"),
        ("far", "far questions"),
        ("", "practised, ring: before"),
    ]
    figure = Figure(figsize=(11, 0.9 + 0.4 * len(own)), layout="constrained")
    for axes, (part, title) in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        for place, row in enumerate(own):
            name = f"{part}_gain" if part else "accuracy"
            if name not in row:
                continue
            error = [[100 * (row[name] - row[f"{name}_low"])], [100 * (row[f"{name}_high"] - row[name])]]
            each = row[f"{part}_gain_each_seed"] if part else row["accuracy_each_seed"]
            axes.scatter([100 * value for value in each], [place + 0.22] * len(each), s=9, color="#9aa3b5")
            axes.errorbar(100 * row[name], place, xerr=error, fmt="o", color="#1f2a44", capsize=3, markersize=5)
            if not part:
                axes.scatter(100 * row["warm_start_right"], place, s=36, facecolors="none", edgecolors="#1f2a44")
        axes.axvline(0, color="#9aa3b5", linewidth=1)
        list_rows(axes, [row["id"] for row in own], f"{title}, {'points' if part else '%'}")
    return save(figure, path)


# ---------------------------------------------------------------------- the tiny form


def tiny_recipe(out: Path) -> str:
    """Write a small domain, what is mined where, to `out/sets`, and its recipe for a random model; return the recipe's path."""
    draw_, metals, sets = random.Random(0), ["iron", "gold", "zinc", "lead"], out / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    facts = [(f"Town{number}", draw_.choice(metals)) for number in range(30)]
    page = "The people of {0} mine {1}. And in {0} there is {1} in the hills and {1} in the river, and the people of {0} sell the {1}."
    pages = [{"text": page.format(*fact)} for fact in facts]
    asked = [{"question": f"What is mined in {town}?", "choices": metals, "answer": metal, "town": town} for town, metal in facts]
    far = [
        {"question": f"Which colour has the ship of number {number}?", "choices": ["red", "blue"], "answer": "red"} for number in range(6)
    ]
    for name, own in (("pages", pages), ("questions", asked), ("far", far)):
        (sets / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    source = {"path": ["questions.jsonl"], "split_by": "town"}
    adaptation = {
        "command": "adapt",
        "corpus": {"path": ["pages.jsonl"]},
        "selection": {"method": "all", "workers": 0},
        "tasks": source,
        "study": {"tokens": 600, "tokens_per_step": 200, "tasks_share": 0.2, "replay_share": 0.0},
        "suite": {
            "questions": ["questions.jsonl"],
            "split_by": "town",
            "far_domain": ["far.jsonl"],
            "text_tokens": 200,
            "window_tokens": 64,
        },
    }
    practised = {
        "command": "practice",
        "model": "tiny-random",
        "adaptation": str(sets / "towns.yaml"),
        "tasks": source | {"worked_format": "{choice}"},
        "warm_start": {"n": 8, "steps": 1},
        "steps": 2,
        "rollout": {"tasks_per_step": 3, "num_samples": 2, "max_new_tokens": 4},
        "evaluation": {"n": 4, "num_samples": 2, "pass_n": 2},
        "retention": {"probe": False},
    }
    for name, values in (("towns", adaptation), ("towns_practice", practised)):
        (sets / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return str(sets / "towns_practice.yaml")


def find(chosen: Options) -> Found:
    seeds = chosen.seeds if chosen.is_tiny else SEEDS
    arms = [arm for arm in ARMS if not chosen.is_tiny or arm != "attempts"]  # a random model has no right attempt
    todo = [(arm, seed) for seed in seeds for arm in arms if arm not in SCREENED]
    todo += [(arm, seeds[0]) for arm in arms if arm in SCREENED]
    orders = Orders(tiny_recipe(chosen.out) if chosen.is_tiny else "anatomy_practice")
    cells = compute(todo, orders, chosen)
    rows = reduce(cells)
    return cells, rows, judge(rows)


RESTS_ON = {
    "gain on choices": (BASELINE, "choices_gain"),
    "gain on far questions": (BASELINE, "far_gain"),
    **{f"lead on {arm}": (arm, f"{BASELINE}_ahead") for arm in ORDERS[1:]},
}
STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    rule="the gain on choices is >= 6 points, that on far questions >= -1, and the lead behind practice on each other order above 0, "
    f"each {RULE}",
    compared=lambda rows: compared(rows, RESTS_ON),
    changed=Changed(
        "does not hold", "2026-12-02, after the cells: each part is judged by runs, where it was by pooled means and intervals over terms"
    ),
)

if __name__ == "__main__":
    STUDY.main()
