"""What does practice add when demonstrations are used up, and how many demonstrations is it worth? Number sorting, six seeds.

    python -m studies.demonstrations [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

sft_N            supervised fine-tuning (SFT) alone, 120 updates on N demonstrations: 16, 64, 320, 1,600
sft_320_for_H    SFT on 320 for 2 H updates more, which take the time of H steps of practice: is 120 a plateau?
practice_H       after sft_320, H steps of practice: 52, 150, 400; the learning rate falls over the steps that there are
practice_of_N    150 steps of practice after the recipe's short warm start (15 updates) on 16 or 64 demonstrations

Claim, judged by runs (`experiments.runs`): after SFT on 320 demonstrations 150 steps of practice add at least 5 points of greedy accuracy,
and end ahead of SFT for as long. The rule was written before any cell. Power: paired differences of two arms have a standard deviation of
about 4 points, with which six seeds show one that is 6 beyond the bound in 80 % of studies. The three arms that the claim names have six
seeds, those of 400 steps and of fewer demonstrations one, all others two. All had six at first; the number was cut for the time that
cells take, after all cells of the first seed and five of seed 152, none of which practised. Claim and rule stayed.

`worth` says at how many demonstrations SFT alone ends as high as an arm: accuracy is interpolated between the four numbers, over the
logarithm of demonstrations; no number where it is above or below all of them. Sorting has one right string, all of which a demonstration
tells, and a score tells one bit of it: it is the task on which practice is worth the least.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log
from statistics import fmean
from typing import Any

from experiments.arms import TINY_RUN, Arms, all_there, reduce_arms
from experiments.cells import Cell, Options, compute
from experiments.measures import Verdict, all_hold, undecided
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Compared, Found, Study
from experiments.tables import Column, Row, arm_column, each_over_runs, interval, mean_over_runs, percent, points, seeds_of, table, value

CLAIM = "after SFT on 320 demonstrations practice on number sorting adds >= 5 points in 150 steps, and is ahead of SFT for as long"
SEEDS = tuple(range(150, 156))
PLATEAU, UPDATES = 120, 2
"""Updates of SFT on any number of demonstrations, and those that take the time of a step of practice."""
NUMBERS, HORIZONS, MAIN = (16, 64, 320, 1600), (52, 150, 400), 150


def changes(numbers: Sequence[int], horizons: Sequence[int], main: int, plateau: int) -> dict[str, dict[str, Any]]:
    """Return the arms, and what each has otherwise than the recipe; practice after SFT goes on from the third number."""
    whole = numbers[2]

    def practice(steps: int, **more: Any) -> dict[str, Any]:
        return {"steps": steps, "learn.optimizer.decay_steps": round(1.1 * UPDATES * steps)} | more

    after = {"warm_start.n": whole, "warm_start.steps": plateau}
    return {
        **{f"sft_{number}": {"warm_start.n": number, "warm_start.steps": plateau, "steps": 0} for number in numbers},
        **{
            f"sft_{whole}_for_{steps}": {"warm_start.n": whole, "warm_start.steps": plateau + UPDATES * steps, "steps": 0}
            for steps in horizons
        },
        **{f"practice_{steps}": practice(steps, **after) for steps in horizons},
        **{f"practice_of_{number}": practice(main, **{"warm_start.n": number}) for number in numbers[:2]},
    }


CHANGES = changes(NUMBERS, HORIZONS, MAIN, PLATEAU)
ARMS = tuple(CHANGES)
DECIDING = (f"sft_{NUMBERS[2]}", f"sft_{NUMBERS[2]}_for_{MAIN}", f"practice_{MAIN}")
"""Arms that the verdict rests on; they have all seeds."""
LONG = (f"sft_{NUMBERS[2]}_for_{HORIZONS[2]}", f"practice_{HORIZONS[2]}", *(f"practice_of_{number}" for number in NUMBERS[:2]))
"""Arms that take longest; they have the first seed."""
FEW = (150, 152)
"""Seeds of the arms that neither decide nor take longest."""


def seeds_for(arm: str) -> Sequence[int]:
    """Return the seeds of an arm."""
    return SEEDS if arm in DECIDING else SEEDS[:1] if arm in LONG else FEW


def reduce(cells: Sequence[Cell], numbers: Sequence[int] = NUMBERS) -> list[dict[str, Any]]:
    """Reduce cells to a row an arm, with what it adds to SFT on the third number of demonstrations, and of practice its lead on SFT."""
    rows = reduce_arms(cells, tuple(dict.fromkeys(cell["id"] for cell in cells)), f"sft_{numbers[2]}")
    ended = {(cell["id"], cell["seed"]): _ended(cell) for cell in cells}
    axis = {number: fmean(own) for number in numbers if (own := [ended[key] for key in ended if key[0] == f"sft_{number}"])}
    for row in rows:
        arm, steps = row["id"], row["id"].removeprefix("practice_")
        for name, other in (("added", f"sft_{numbers[2]}"), ("ahead", f"sft_{numbers[2]}_for_{steps}")):
            both = [(ended[arm, seed], ended[other, seed]) for a, seed in ended if a == arm != other and (other, seed) in ended]
            row |= over_runs(name, [own - its for own, its in both]) if both else {}
        if arm.startswith("practice") and len(axis) == len(numbers):
            row["worth"] = worth(row["accuracy"], axis)
    order = {arm: place for place, arm in enumerate(("base", "warm_start", *ARMS))}
    return sorted((row for row in rows if row["id"] != "warm_start"), key=lambda row: order.get(row["id"], 0))


def _ended(cell: Cell) -> float:
    (bits,) = cell["right"]["practice"].values()
    return sum(map(int, bits)) / len(bits)


def worth(accuracy: float, axis: dict[int, float]) -> float | None:
    """Return at how many demonstrations SFT has an accuracy; None outside its range.

    >>> worth(0.4, {16: 0.2, 64: 0.6}), worth(0.7, {16: 0.2, 64: 0.6})
    (32.0, None)
    """
    for (few, low), (many, high) in pairwise(sorted(axis.items())):
        if low <= accuracy <= high and low < high:
            share = (accuracy - low) / (high - low)
            return round(exp(log(few) + share * (log(many) - log(few))), 6)
    return None


def judge(rows: Sequence[Row], seeds: int = len(SEEDS)) -> Verdict:
    """Judge the claim by the rows alone."""
    if not all_there(rows, seeds, DECIDING):
        return undecided()
    own = next(row for row in rows if row["id"] == f"practice_{MAIN}")
    added, ahead = own["added_each_seed"], own["ahead_each_seed"]
    parts = {
        f"practice adds >= 5 points to SFT ({in_points(added)})": is_above(added, 0.05),
        f"it is ahead of SFT for as long ({in_points(ahead)})": is_above(ahead),
    }
    return all_hold(parts)


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the differences of each seed that the verdict rests on."""
    own = next((row for row in rows if row["id"] == f"practice_{MAIN}"), {})
    wanted = {"what practice adds to SFT": "added", "its lead on SFT for as long": "ahead"}
    return {name: Compared(own[f"{measure}_each_seed"]) for name, measure in wanted.items() if f"{measure}_each_seed" in own}


def show(rows: Sequence[Row]) -> str:
    """Write one line an arm."""
    columns = [
        arm_column(rows),
        Column("greedy [items]", interval("accuracy", percent)),
        Column("pass@8", value("pass_at_8", percent)),
        Column("minus SFT on 320 [runs]", each_over_runs("added", points)),
        Column("minus SFT on 320 for as long [runs]", mean_over_runs("ahead", points)),
        Column("worth so many demonstrations", value("worth", "{:,.0f}".format)),
        Column("training", value("training_seconds", "{:.0f} s".format)),
    ]
    below = f"{rows[0]['n']:,} items, {seeds_of(rows)}. 95 % intervals: [items] over items, [runs] over seeds (t)."
    return table(rows, columns, below)


def find(chosen: Options) -> Found:
    if chosen.is_tiny:
        numbers = (4, 8, 16, 32)
        arms = Arms("tiny", {}, TINY_RUN | {"learn.optimizer.lr_scheduler": "linear"}, changes(numbers, (2, 3, 4), 3, 4))
    else:
        numbers, arms = NUMBERS, Arms("number_sorting", {}, {"evaluation.n": 1000}, CHANGES)
    cells = compute(
        [(arm, seed) for seed in chosen.seeds for arm in arms.changes if chosen.is_tiny or seed in seeds_for(arm)], arms, chosen
    )
    rows = reduce(cells, numbers)
    return cells, rows, judge(rows) if not chosen.is_tiny else undecided()


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    rule="what 150 steps of practice add to SFT on 320 demonstrations is >= 5 points, and their lead on SFT for as long is above 0, "
    f"each {RULE}",
    compared=rests_on,
)

if __name__ == "__main__":
    STUDY.main()
