"""What does long practice cost of the old knowledge, and a second task after the first? Measured where it can be lost, five seeds.

    python -m studies.retention_stress --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

start        the warm start of `number_sorting`, which all others go on from
base         the model as it came: what the warm start costs is the way from it to the start
rl_52        its practice; rl_250 and rl_500 with so many steps, and a rate that falls accordingly
rl_500_kl    rl_500 with an anchor to the start (coefficient 0.05)
two_tasks    rl_250, and then word reversal: its form shown by as many demonstrations, and 250 steps of practice
sft          more demonstrations instead, as in `studies.retention`: at the gain of rl_500

What is lost is measured by the retention suite with the start of the seed to compare with (`etude.suites.retention_changes`):

known   questions with choices that the start knows by 0.2 nats a token, the 600 of four files and the 80 that ship: share still known
kept    greedy answers that the start had right, to closed-book questions, instructions and families of problems: share right now.
        Not all of it is loss, since near misses change to both sides: `new` is the share right of those that the start had wrong
above   accuracy on the 600 questions above chance, as a share of the start's
kl      KL(start || model), exact, in nats a token: on three texts, and on the start's answers to everyday prompts

Claim, judged by runs (`experiments.runs`), each part by the differences of the seeds: (1) rl_500 and two_tasks know at least 95 % of what
the start knew, and (2) keep at least 90 % of its right answers; (3) rl_500 keeps more right answers than sft, which is undecided where
their gains differ by 5 points or more on average; (4) rl_500_kl keeps more right answers than rl_500, and its gain isn't 5 points smaller.
All parts hold, or the claim does not. The rule was written before any cell was there.

Power: runs of one arm differ. If differences of `kept` have the standard deviation of those of accuracy on number sorting, 4 points, five
seeds see 6.7 points in 80 % of studies, beyond another arm or beyond a bound.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from etude.evaluation.kept import Answered, above_chance
from etude.evaluation.statistics import shares_interval
from etude.models.load import load_model
from etude.settings.configuration import to_plain_values
from etude.suites.general_knowledge import ALL, SHIPPED
from etude.suites.harness import Subject
from etude.suites.retention import RETENTION
from etude.suites.retention_changes import CHAT, divergence_pieces, divergence_sums
from etude.suites.retention_parts import Items, measure_parts
from etude.suites.retention_settings import RetentionSuite
from etude.training.run_folder import RunFolder
from experiments.arms import run_of
from experiments.cells import Cell, Options, compute
from experiments.figures import save
from experiments.measures import Verdict, all_hold, lacking, mean_share, undecided, with_ends
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Compared, Found, Study
from experiments.tables import Column, Row, each_over_runs, interval, name_of, percent, points, seeds_of, table, value
from studies.retention import RUN, TINY, TINY_SFT_STEPS, TINY_SIZES, Retaining

CLAIM = (
    "after 500 steps of practice, and after two tasks in turn, a model knows >= 95 % of what it knew and keeps >= 90 % of its right "
    "answers; demonstrations at equal gain keep fewer; an anchor to the start keeps more at no smaller gain"
)
SEEDS = (110, 111, 112, 113, 114)
KNOWN, KEPT, SAME_GAIN = 0.95, 0.90, 0.05
FIRST, LAST = "rl_250", "two_tasks"


def _steps(number: int, decay: int) -> dict[str, Any]:
    """So many steps, over which the rate falls to where the recipe's ends."""
    return {"steps": number, "learn.optimizer.decay_steps": decay}


REVERSAL = {
    "tasks.family": "word_sequence_reversal",
    "tasks.parameters": {"min_words": 4, "max_words": 6},
    "tasks.question": "Reverse this list of words: {words}",
}
PRACTISED: dict[str, dict[str, Any]] = {
    "start": {"steps": 0},
    "base": {"steps": 0, "warm_start.steps": 0},
    "rl_52": {},
    FIRST: _steps(250, 548),
    "rl_500": _steps(500, 1096),
    "rl_500_kl": _steps(500, 1096) | {"kl_penalty.kl_coef": 0.05},
    LAST: _steps(250, 548) | REVERSAL,
    "sft": {"steps": 0, "warm_start.n": 1600},
}
ARMS = tuple(PRACTISED)
SUITE = RETENTION.parse("retention", ["--against", "start"])
TINY_ARMS = ("start", "base", "rl_500", FIRST, LAST, "sft")
TINY_SUITE = RetentionSuite(
    against="start",
    known_margin=0.0,
    text_tokens=100,
    divergence_tokens=100,
    instructions=22,
    max_new_tokens=4,
    closed_book=6,
    closed_book_tokens=4,
    chat_prompts=3,
    chat_tokens=4,
)
TINY_PRACTISED = PRACTISED | {"rl_500": {"steps": 4}, FIRST: {"steps": 3}, LAST: {"steps": 3}}


@dataclass(frozen=True)
class Stressed(Retaining):
    """A cell for every model: what it can, what it knows and does item by item, and how far it is from the start."""

    suite: RetentionSuite = field(default_factory=lambda: SUITE)

    def settings(self, arm: str, seed: int) -> dict[str, Any]:
        return super().settings(arm, seed) | {"suite": to_plain_values(self.suite)}

    def needed(self, arm: str) -> tuple[str, ...]:
        return (*super().needed(arm), FIRST) if arm == LAST else super().needed(arm)

    def run(self, arm: str, seed: int, chosen: Options) -> Cell:
        """Compute a cell; of the model with two tasks, also what it can of the second."""
        found = super().run(arm, seed, chosen)
        return found | ({"second": self._second(seed, chosen)} if arm == LAST else {})

    def _practised(self, arm: str, seed: int, runs: Mapping[str, Path], chosen: Options) -> dict[str, Any]:
        if arm != LAST:
            return super()._practised(arm, seed, runs, chosen)
        settings = replace(self._settings(arm, seed), model=str(runs[FIRST] / "model"))
        run_of(settings, self.recipe, runs[arm], chosen.data)
        return {}

    def _second(self, seed: int, chosen: Options) -> str:
        """Return which tasks of the second kind its model answers rightly, of those that its own run measured."""
        folder = RunFolder(chosen.out / "runs" / f"{LAST}-{seed}")
        (page,) = folder.read_json("evaluation/practice.json")["suites"]
        return "".join(str(int(item["score"] == 1.0)) for item in page["items"])

    def _knows(self, model: Subject, start: Path) -> dict[str, Any]:
        """Measure the items of the retention suite, and the divergence from the start, which writes the answers that it is measured on."""
        items = Items()
        for row in measure_parts(self.suite, model, items, with_text=False):
            print(f"{row['part']} {row['name']}: {row['value']:.3f}", flush=True)
        first = replace(model, model=load_model(str(start / "model"), device=model.place.device)[0])
        sums = divergence_sums(first.model, model.model, divergence_pieces(self.suite, first))
        return {
            "choices": {name: items.choices[name] for name in (SHIPPED, ALL)},
            "answers": {part: "".join(str(int(bit)) for bit in bits) for part, bits in items.right.items()},
            "kl": {name: [[round(nats, 6), tokens] for nats, tokens in own] for name, own in sums.items()},
        }


# ---------------------------------------------------------------------- from cells to rows


Bits = list[float | None]
"""For every item whether it is right; None where it doesn't count."""


def reduce(cells: Sequence[Cell], set_name: str, margin: float = SUITE.known_margin) -> list[dict[str, Any]]:
    """Reduce cells to a row for each arm that is there, pooled over its seeds; each seed is compared with its own start."""
    starts, bases = ({cell["seed"]: cell for cell in cells if cell["id"] == arm} for arm in ("start", "base"))
    rows = []
    for arm in ARMS:
        own = [(cell, starts[cell["seed"]]) for cell in cells if cell["id"] == arm and cell["seed"] in starts]
        if own:
            of_base = [(cell, bases[cell["seed"]]) for cell, _ in own if cell["seed"] in bases]
            rows.append(_row(arm, own, of_base, set_name, margin))
    return rows


def _row(arm: str, own: Sequence[tuple[Cell, Cell]], of_base: Sequence[tuple[Cell, Cell]], set_name: str, margin: float) -> dict[str, Any]:
    right = [int(bit) for cell, _ in own for bit in cell["right"]]
    gains = [_share([*map(int, cell["right"])]) - _share([*map(int, start["right"])]) for cell, start in own]
    row: dict[str, Any] = {"id": arm, "set": set_name, "n": len(right), "seeds": len(own), **mean_share("accuracy", right)}
    row |= {"gain": fmean(gains), **over_runs("gain", gains)}
    for name, pairs, bits in (
        ("known", own, partial(known, margin=margin)),
        ("kept", own, partial(answers_right, were_right=True)),
        ("new", own, partial(answers_right, were_right=False)),
        ("kept_of_base", of_base, partial(answers_right, were_right=True)),
    ):
        row |= shares(name, pairs, bits)
    above = [ratio[0] for cell, start in own if (ratio := above_chance(_answered(start, ALL), _answered(cell, ALL)))]
    row |= {"above": fmean(above), **over_runs("above", above)} if above else {}
    for name, is_own in (("kl_text", lambda text: text != CHAT), ("kl_chat", lambda text: text == CHAT)):
        row |= nats_a_token(name, [[pair for text, sums in cell["kl"].items() if is_own(text) for pair in sums] for cell, _ in own])
    row["forward_kl"] = fmean(cell["forward_kl"] for cell, _ in own)
    second = [_share([*map(int, cell["second"])]) for cell, _ in own if "second" in cell]
    return row | ({"second": fmean(second), **over_runs("second", second)} if second else {})


def known(cell: Cell, start: Cell, margin: float) -> Bits:
    """Return for each question that the start knows with a margin whether it is still known."""
    pairs = [pair for name in dict.fromkeys(cell["choices"]) for pair in zip(_answered(start, name), _answered(cell, name), strict=True)]
    return [float(now.margin > 0) if then.margin >= margin else None for then, now in pairs]


def answers_right(cell: Cell, start: Cell, were_right: bool) -> Bits:
    """Return whether greedy answers are right, of those that the start had right, or had wrong."""
    pairs = [pair for part, bits in cell["answers"].items() for pair in zip(start["answers"][part], bits, strict=True)]
    return [float(now) if (then == "1") == were_right else None for then, now in pairs]


def shares(name: str, pairs: Sequence[tuple[Cell, Cell]], bits: Callable[[Cell, Cell], Bits]) -> dict[str, Any]:
    """Return the share right, with intervals over items (an item's value is its mean over seeds) and over runs; nothing if none counts."""
    each = [bits(cell, other) for cell, other in pairs]
    by_seed = [[bit for bit in own if bit is not None] for own in each]
    if not by_seed or not all(by_seed):
        return {}
    items = [fmean(there) for item in zip(*each, strict=True) if (there := [bit for bit in item if bit is not None])]
    return with_ends(name, fmean(items), shares_interval(items)) | {f"{name}_n": len(items)} | over_runs(name, [*map(_share, by_seed)])


def nats_a_token(name: str, by_seed: Sequence[Sequence[tuple[float, int]]]) -> dict[str, Any]:
    """Return the mean over seeds of the divergence in nats a token, with its interval over runs."""
    values = [sum(nats for nats, _ in sums) / sum(tokens for _, tokens in sums) for sums in by_seed if sums]
    return {name: fmean(values), **over_runs(name, values)} if values else {}


def _answered(cell: Cell, name: str) -> list[Answered]:
    return [Answered(*each) for each in cell["choices"][name]]


def _share(bits: Sequence[float]) -> float:
    return sum(bits) / len(bits)


# ---------------------------------------------------------------------- from rows to a verdict


def judge(rows: Sequence[Row], seeds: int = len(SEEDS)) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {row["id"]: row for row in rows}
    if missing := lacking(found, ARMS, seeds):
        return undecided(missing)
    gains, kept = ({arm: found[arm][f"{name}_each_seed"] for arm in ARMS} for name in ("gain", "kept"))
    parts: dict[str, bool | None] = {}
    for arm in ("rl_500", LAST):
        for name, measure, bound in (("knows", "known", KNOWN), ("keeps", "kept", KEPT)):
            each = found[arm][f"{measure}_each_seed"]
            parts[f"{arm} {name} >= {100 * bound:.0f} % ({in_points(each)})"] = is_above(each, bound)
    ahead, apart = _apart(kept["rl_500"], kept["sft"]), _apart(gains["rl_500"], gains["sft"])
    is_equal = abs(fmean(apart)) < SAME_GAIN
    parts[f"rl_500 keeps more than sft ({in_points(ahead)}; gain {in_points(apart)})"] = is_above(ahead) if is_equal else None
    anchored, slower = _apart(kept["rl_500_kl"], kept["rl_500"]), _apart(gains["rl_500_kl"], gains["rl_500"])
    parts[f"the anchor keeps more ({in_points(anchored)})"] = is_above(anchored)
    parts[f"the anchor gains no 5 points less ({in_points(slower)})"] = is_above(slower, -SAME_GAIN)
    return all_hold(parts)


def _apart(own: Sequence[float], its: Sequence[float]) -> list[float]:
    return [mine - other for mine, other in zip(own, its, strict=True)]


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the differences of each seed that the verdict rests on."""
    found = {row["id"]: row for row in rows}
    each = {f"{arm}, {name}": row[f"{name}_each_seed"] for arm, row in found.items() for name in ("known", "kept") if name in row}
    wanted = {name: Compared(values) for name, values in each.items() if name.split(",")[0] in ("rl_500", LAST)}
    for name, arm, other in (("kept, rl_500 - sft", "rl_500", "sft"), ("kept, anchor - none", "rl_500_kl", "rl_500")):
        if all("kept" in found.get(one, {}) for one in (arm, other)):
            own, its = (found[one]["kept_each_seed"] for one in (arm, other))
            wanted |= {name: Compared(_apart(own, its))} if len(own) == len(its) else {}
    return wanted


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Write an SVG: gain on the new task against what is kept, still known, and the divergence on the start's own answers."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = {"kept": "right answers kept", "known": "questions still known", "kl_chat": "KL on everyday answers, nats a token"}
    for axes, (name, said) in zip(figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True):
        for row in (row for row in rows if name in row):
            axes.plot(row[f"{name}_each_seed"], row["gain_each_seed"], "o", markersize=3, alpha=0.4, color="#9aa3b5")
            axes.plot(row[name], row["gain"], "o", markersize=6, color="#1f2a44")
            axes.annotate(name_of(row), (row[name], row["gain"]), xytext=(5, 4), textcoords="offset points", fontsize=8)
        axes.set_xlabel(said, fontsize=9)
        axes.grid(color="#e7e9ee", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0, labelsize=8)
    figure.axes[0].set_ylabel(f"gain on {rows[0]['set']}", fontsize=9)
    figure.axes[0].set_title(f"{seeds_of(rows)}; small dots: each", loc="left", fontsize=9)
    return save(figure, path)


NATS = "{:.4f}".format
TABLE = (
    Column("arm", name_of),
    Column("greedy [items]", interval("accuracy", percent)),
    Column("gain per seed [runs]", each_over_runs("gain", points)),
    Column("still known [items]", interval("known", percent)),
    Column("per seed [runs]", each_over_runs("known", percent)),
    Column("right answers kept [items]", interval("kept", percent)),
    Column("per seed [runs]", each_over_runs("kept", percent)),
    Column("newly right", value("new", percent)),
    Column("kept of the base's", value("kept_of_base", percent)),
    Column("above chance", value("above", percent)),
    Column("KL(start || model), text, nats a token [runs]", each_over_runs("kl_text", NATS)),
    Column("the same, everyday answers", each_over_runs("kl_chat", NATS)),
    Column("new task, nats an answer", value("forward_kl", "{:.2f}".format)),
    Column("second task", value("second", percent), needs="second"),
)


def show(rows: Sequence[Row]) -> str:
    """Write one line an arm."""
    most = {name: max(row.get(f"{name}_n", 0) for row in rows) for name in ("known", "kept")}
    below = (
        f"{rows[0]['n']:,} items of {rows[0]['set']}, {seeds_of(rows)}; {most['known']} questions that a start knew, {most['kept']} "
        "answers that one had right. 95 % intervals: [items] over items, [runs] over seeds (t)."
    )
    return table(rows, TABLE, below)


def find(chosen: Options) -> Found:
    if chosen.is_tiny:
        tiny: dict[str, Any] = {"sizes": TINY_SIZES, "sft_steps": TINY_SFT_STEPS, "suite": TINY_SUITE}
        models = Stressed("tiny", {}, TINY, TINY_PRACTISED, arms=ARMS, target="rl_500", **tiny)
    else:
        models = Stressed("number_sorting", {}, RUN, PRACTISED, arms=ARMS, target="rl_500")
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in (TINY_ARMS if chosen.is_tiny else ARMS)], models, chosen)
    rows = reduce(cells, *(("tiny", TINY_SUITE.known_margin) if chosen.is_tiny else ("number_sorting",)))
    return cells, rows, judge(rows)


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="science_mcq, mmlu, gutenberg_books and openstax_anatomy",
    rule="rl_500 and two_tasks know >= 95 % and keep >= 90 %, rl_500 keeps more than sft at gains within 5 points, and the anchor keeps "
    f"more at a gain no 5 points smaller, each {RULE}",
    compared=rests_on,
)

if __name__ == "__main__":
    STUDY.main()
