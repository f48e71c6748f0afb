"""What does a model know and not say, and does learning close the gap? By likelihood, in samples, at once, and by layer.

    python -m studies.knows_says --data DIR [--hours H] [--only ID ...] [--tiny]

base        SmolLM2-135M as it came
adapted     the same after a textbook of anatomy (`etude adapt anatomy`)
practised   the adapted model after practice on the glossary's terms of the training sections (`etude practice anatomy_practice`)
joined      the base after practice on answers that it joined of its own, to questions of WebQuestions (`etude practice short_answers`)

Each is asked 300 questions of TriviaQA, which have a false answer, and for 300 definitions of the glossary's test sections the term, where
the false answer is another term of the section, the nearest in length: is the right answer likelier a byte than the false one (by chance:
another question's right answer), is it in one of eight samples, is it said at once, after which layers does it lead; and what some methods
of decoding make of that. A cell is a model and a set. Models stay under `runs`; trained once, on one seed.

`said` is the share of the questions with a right sample that are answered rightly at once. Claim: it is higher of the practised model than
of the base, on terms, and of the joined one, on TriviaQA (bootstrap over questions, 95 %, of the difference).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from etude.console.reporter import Console
from etude.device.machine import resolve_device
from etude.files import write_atomically
from etude.randomness import seed_for
from etude.settings.configuration import to_plain_values
from etude.suites.latent_knowledge import LATENT_KNOWLEDGE, LatentKnowledge, method_line
from etude.tasks.sources import load_tasks
from etude.tasks.task import Task
from etude.tiny import letters
from etude.training.parse import practice_defaults
from etude.training.settings import PracticeSettings
from experiments.arms import TINY_RUN, run_of, settings_of
from experiments.cells import Cell, Options, compute, made_here
from experiments.figures import save
from experiments.measures import Verdict, decided, in_points, undecided, with_ends
from experiments.study import Found, Study
from experiments.tables import Column, Row, interval, percent, points, seeds_of, table

CLAIM = "of the questions with a right sample, more are answered rightly at once after practice, and after that on own joint answers"
SEEDS = (98,)
MODEL = "smollm2-135m"
MODELS = ("base", "adapted", "practised", "joined")
N, K = 300, 8
METHODS = ("majority", "integrative", "universal_self_consistency", "best_logprob", "layer_contrast_dynamic")
CLAIMED = (("practised", "terms"), ("joined", "triviaqa"))
RECIPES = {"practised": "anatomy_practice", "adapted": "anatomy_practice", "joined": "short_answers"}
"""Whose run a model comes from; the adapted one is what the practised one began with."""
SETS: dict[str, dict[str, Any]] = {
    "triviaqa": {
        "path": ["openqa_false_answers/TriviaQA.csv"],
        "wrong": "false_answer",
        "instruction": "Answer in a few words.",
    },
    "terms": {"system": ""},
}
ARMS = tuple(f"{model}-{name}" for name in SETS for model in MODELS)
TINY_ARMS = ("base-letters", "joined-letters")
TINY = TINY_RUN | {"reward": "self_training", "self_training.decoding.k": 2, "learn.method": "imitation", "retention.probe": False}


class Gap:
    """A cell for every model and set."""

    def __init__(self, is_tiny: bool) -> None:
        self.is_tiny = is_tiny

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        model, _, name = arm.partition("-")
        recipe = None if model == "base" else self._practised(model, seed)
        came = "tiny-random" if self.is_tiny else MODEL
        own = {"set": name, "asked": SETS.get(name, {}), "n": N, "k": K, "methods": list(METHODS)}
        return own | {"model": model, "trained": to_plain_values(recipe) if recipe else came}

    def defaults(self) -> dict[str, Any]:
        return {f"trained.{name}": value for name, value in practice_defaults().items()}

    def _practised(self, model: str, seed: int) -> PracticeSettings:
        recipe, changes = ("tiny", TINY) if self.is_tiny else (RECIPES[model], {})
        return settings_of(recipe, {**changes, "seed": seed})

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Measure what is known and said, a value a question, and what methods of decoding make of it."""
        model, _, name = arm.partition("-")
        suite = self._suite(name, chosen)
        found = LATENT_KNOWLEDGE.evaluate(self._model(model, seed, chosen), suite, data=chosen.data, reporter=Console())
        items = found["items"]
        return {
            **made_here(resolve_device(suite.machine).precision),
            "row": found["row"],
            "methods": found["methods"],
            "right_samples": [item["right_samples"] for item in items],
            "greedy": "".join(str(int(item["greedy"])) for item in items),
            "likelihood": "".join(str(int(item["likelihood"])) for item in items),
        }

    def _model(self, model: str, seed: int, chosen: Options) -> str:
        """Return the model's folder, or the name of the base; a run that is there is resumed, or only read."""
        if model == "base":
            return str(self.settings("base-", seed)["trained"])
        settings = self._practised(model, seed)
        recipe = "tiny" if self.is_tiny else RECIPES[model]
        folder = chosen.out / "runs" / f"{recipe}-{seed}"
        run_of(settings, recipe, folder, chosen.data)
        return str(folder / "knowledge" / "model" if model == "adapted" else folder / "model")

    def _suite(self, name: str, chosen: Options) -> LatentKnowledge:
        if self.is_tiny:
            rows = [{**row, "wrong": "z"} for row in letters("test", 6, seed=0)]
            return LatentKnowledge(**_written(rows, chosen.out / "runs" / "letters.jsonl"), n=6, methods=["majority"], max_new_tokens=4)
        own = dict(SETS[name])
        if name == "terms":
            own |= _written(terms(chosen.data), chosen.out / "runs" / "terms.jsonl")
        return LatentKnowledge(**own, n=N, methods=list(METHODS))


def _written(rows: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    path.parent.mkdir(exist_ok=True)  # where nothing is kept with the study
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
    return {"path": [str(path.resolve())]}


def terms(data: Path | None) -> list[dict[str, str]]:
    """Return the glossary's questions of the test sections, by seed, each with another term of its section."""
    source = settings_of("anatomy_practice", {}).tasks
    tasks = load_tasks(source, split="test", n=None, seed=SEEDS[0], data=data)
    order = sorted(range(len(tasks)), key=lambda place: seed_for(*SEEDS, "terms", place))
    found = [(task, _another(task, tasks)) for task in (tasks[place] for place in order)]
    return [{"question": task.question, "answer": str(task.answer), "wrong": wrong} for task, wrong in found if wrong][:N]


def _another(task: Task, tasks: Sequence[Task]) -> str | None:
    """Return the term of its section that is nearest in length, of those of which none says the other."""
    own = str(task.answer)
    others = [str(each.answer) for each in tasks if each.metadata["section"] == task.metadata["section"]]
    apart = [other for other in others if own.lower() not in other.lower() and other.lower() not in own.lower()]
    return min(apart, key=lambda other: abs(len(other) - len(own)), default=None)


# ---------------------------------------------------------------------- from cells to rows


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to a row for every model and set."""
    found = {tuple(cell["id"].split("-")): cell for cell in cells}
    rows = []
    for name in dict.fromkeys(name for _, name in found):
        for model in (model for model in MODELS if (model, name) in found):
            cell = found[model, name]
            row = {"id": model, "set": name, "seeds": 1, **cell["row"], "methods": cell["methods"]}
            row |= _said("said", cell)
            if model != "base" and ("base", name) in found:
                row |= _said("said_gain", cell, found["base", name])
            rows.append(row)
    return rows


def _said(measure: str, cell: Cell, before: Cell | None = None, draws: int = 2000) -> dict[str, float]:
    """Return the share of the questions with a right sample that are answered rightly at once, or what it is more than before, with the
    interval of the percentile bootstrap over questions.
    """

    def shares(own: Cell, drawn_DN: np.ndarray) -> np.ndarray:
        known_N = np.array(own["right_samples"]) > 0
        both_N = known_N & (np.array(list(own["greedy"])) == "1")
        found: np.ndarray = both_N[drawn_DN].sum(-1) / np.maximum(known_N[drawn_DN].sum(-1), 1)
        return found

    n = len(cell["greedy"])
    drawn_DN = np.random.default_rng(seed_for("said", n)).integers(n, size=(draws, n))
    every_DN = np.concatenate([np.arange(n)[None], drawn_DN])
    values_D = shares(cell, every_DN) - (shares(before, every_DN) if before else 0)
    return with_ends(measure, float(values_D[0]), np.quantile(values_D[1:], [0.025, 0.975]).tolist())


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {(row["id"], row["set"]): row for row in rows if "said_gain" in row}
    if missing := [f"{model} on {name}" for model, name in CLAIMED if (model, name) not in found]:
        return undecided(missing)
    said = [f"{model} on {name} {in_points(found[model, name], 'said_gain', unit=' points')}" for model, name in CLAIMED]
    holds = all(found[each]["said_gain_low"] > 0 for each in CLAIMED)
    return decided(holds, f"said at once of what is in samples, against the base: {', '.join(said)}")


def show(rows: Sequence[Row]) -> str:
    """Write one line a model and set: what is known by likelihood, in samples and at once, from which layer on, and what methods say."""

    def by(place: int) -> Callable[[Row], str]:
        return lambda row: f"{percent(row['methods'][place]['accuracy'])} ({points(row['methods'][place]['gain'])})"

    columns = [
        Column("set", itemgetter("set")),
        Column("model", itemgetter("id")),
        Column("likelier than a false one", interval("likelihood", percent)),
        Column("of another question", interval("chance", percent)),
        Column(f"in {rows[0]['k']} samples", interval("pass_at_k", percent)),
        Column("at once", interval("greedy", percent)),
        Column("of what is in samples", interval("said", percent)),
        Column("more than the base", interval("said_gain", points)),
        Column("ahead of another's from layer", _layer),
        *(Column(each["method"].replace("_", " "), by(place)) for place, each in enumerate(rows[0]["methods"])),
    ]
    sizes = dict.fromkeys(f"{row['n']:,} questions of {row['set']}" for row in rows)
    below = f"{', '.join(sizes)}; {seeds_of(rows)}; intervals (95 %) over questions; behind a method its points on greedy."
    return table(rows, columns, below)


def _layer(row: Row) -> str:
    return "" if row["leads_from"] is None else f"{row['leads_from']:g} of {len(row['leads_after']) - 1}"


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG, a column a set: of every model what is known and said, with intervals; below after which layers right answers lead,
    and (dotted) those of another question do.
    """
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(4.6 * len(sets), 5.4), layout="constrained")
    kinds = {
        "likelihood": ("#9aa3b5", "likelier than a false one"),
        "pass_at_k": ("#1f5fd6", f"in one of {K} samples"),
        "greedy": ("#1f2a44", "said at once"),
    }
    colours = dict(zip(MODELS, ("#9aa3b5", "#0b7a6c", "#1f2a44", "#c2571a"), strict=True))
    axes = figure.subplots(2, len(sets), squeeze=False)
    for column, name in enumerate(sets):
        own, above, below = [row for row in rows if row["set"] == name], axes[0][column], axes[1][column]
        for place, row in enumerate(own):
            for step, (kind, (colour, said)) in enumerate(kinds.items()):
                error = [[row[kind] - row[f"{kind}_low"]], [row[f"{kind}_high"] - row[kind]]]
                label = said if place == 0 else None
                above.errorbar(place + 0.2 * (step - 1), row[kind], yerr=error, fmt="o", color=colour, capsize=2, markersize=5, label=label)
            below.plot(range(len(row["leads_after"])), row["leads_after"], color=colours[row["id"]], label=row["id"])
            below.plot(range(len(row["chance_after"])), row["chance_after"], color=colours[row["id"]], linestyle=":", linewidth=1)
        above.set_xticks(range(len(own)), [row["id"] for row in own])
        above.set_title(f"{name}: known and said (n = {own[0]['n']:,}, 95 %)", fontsize=9)
        below.set_title("the right answer leads after layer (dotted: another question's)", fontsize=9)
        below.xaxis.get_major_locator().set_params(integer=True)
        for each in (above, below):
            each.set_ylim(-0.03, 1.03)
            each.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
            each.tick_params(labelsize=8)
            each.spines[["top", "right"]].set_visible(False)
            each.legend(fontsize=7, frameon=False)
    return save(figure, path)


def find(chosen: Options) -> Found:
    arms = TINY_ARMS if chosen.is_tiny else ARMS
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in arms], Gap(chosen.is_tiny), chosen)
    rows = reduce(cells)
    for row in rows:
        print(f"{row['id']} on {row['set']}: " + "; ".join(method_line(each) for each in row["methods"]))
    return cells, rows, judge(rows)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="openqa_false_answers, webquestions and openstax_anatomy",
    rule="said at once of what is in samples is more than the base's for both claimed models, by the whole 95 % interval over questions",
    about="these models",
    remarks=[
        "There is no model after the warm start alone: what the practised one says at once more often may be the warm start's, as it is "
        "in the study of orders (`studies.order`), where practice raises that share in no arm."
    ],
)

if __name__ == "__main__":
    STUDY.main()
