"""Does practice on answers alone help with real word problems? The word_problems recipe against its controls, three seeds.

    python -m studies.word_problems --data DIR [--hours H] [--only ID ...] [--tiny]

Claim: after a warm start from 200 worked problems, practice on the gold answers of the training problems raises greedy accuracy on the test
problems and on SVAMP, each with paired p < 0.01 pooled over seeds, and stays ahead of random scores and of a longer warm start. Gains and
leads are judged by runs (`experiments.runs`). Until 2026-12-02 they were judged by intervals over items, as had been written before the
cells. The aim, told beside the verdict, is 1.25 times the warm start's accuracy. Seeds 20 to 22: seed 10 was looked at with shorter
practice before (LOG.md). The longer warm start takes about as long as practice. Random scores have 56 steps where practice has 136, since
none of their groups is dropped.

A second table says on which problems practice gains, by the operation that solves them. It follows from the same cells, which keep the key
of every problem and who was right. The operation is read from a problem's worked steps or its equation. `operations.json`, in the study's
folder, keeps it by key: written where the problems are there, so that the table follows from committed files.
"""

import json
import re
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any

from etude.files import write_atomically
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from experiments import figures
from experiments.arms import ARMS, TINY, Arms, all_there, difference, reduce_arms, right_of, settings_of
from experiments.arms_table import arms_table
from experiments.cells import Cell, Options, compute
from experiments.measures import Verdict, all_hold, differences, mean_share, undecided
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Changed, Compared, Found, Study, compared
from experiments.tables import Column, Row, each_over_runs, interval, name_of, p_value, percent, points, seeds_of, table, value

CLAIM = (
    "practice on gold answers raises accuracy on word_problems test and SVAMP over the warm start (p < 0.01), "
    "beyond what random scores and a longer warm start do in about the same time; aim: 1.25 times"
)
SEEDS = (20, 21, 22)
STEPS = {"longer_warm_start": 350, "random_reward": 56}
CONTROLS = ("random_reward", "longer_warm_start")
AIM = 1.25
RECIPE = "word_problems"
OPERATIONS = {"+": "one_addition", "-": "one_subtraction", "*": "one_multiplication", "/": "one_division"}
SEVERAL = "several_steps"


def find(chosen: Options) -> Found:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else (RECIPE, STEPS, {})
    seeds = chosen.seeds if chosen.is_tiny else SEEDS
    cells = compute([(arm, seed) for arm in ARMS for seed in seeds], Arms(recipe, steps, overrides), chosen)
    rows = reduce_arms(cells)
    practised = [cell for cell in cells if cell["id"] == "practice"]
    return cells, [*rows, *reduce_operations(practised, operations(chosen))], judge(rows, len(seeds))


def judge(rows: Sequence[Row], seeds: int) -> Verdict:
    """Judge the claim by the rows alone."""
    if not all_there(rows, seeds):
        return undecided()
    found = {(row["id"], row["set"]): row for row in rows}
    parts: dict[str, bool | None] = {}
    for row in (row for row in rows if row["id"] == "practice"):
        gains, warm = row["gain_each_seed"], found["warm_start", row["set"]]["accuracy"]
        aim = "reached" if row["accuracy"] >= AIM * warm else "missed"
        said = f"{row['accuracy']:.3f} against {warm:.3f}, {p_value(row['gain_p'])} over items, n = {row['n']}, {AIM} times {aim}"
        parts[f"{row['set']}: {said} ({in_points(gains)})"] = is_above(gains) if row["gain_p"] < 0.01 else False
        for control in CONTROLS:
            ahead = found[control, row["set"]]["practice_ahead_each_seed"]
            parts[f"{row['set']}: practice is ahead of {control} ({in_points(ahead)})"] = is_above(ahead)
    return all_hold(parts)


# ---------------------------------------------------------------------- by the operation that solves a problem


def operations(chosen: Options) -> dict[str, str]:
    """Return the operation of every problem that is measured, by key: read from the data and kept, or as kept; of the tiny form none."""
    kept = chosen.out / "operations.json"
    if chosen.data is not None and not chosen.is_tiny:
        source = TaskSource(path=settings_of(RECIPE, {}).evaluation.path)
        tasks = load_tasks(source, split="test", n=None, seed=0, data=chosen.data)
        write_atomically(kept, json.dumps({task.key: operation_of(task) for task in tasks}, indent=1) + "\n")
    return json.loads(kept.read_text(encoding="utf8")) if kept.exists() else {}


def operation_of(task: Task) -> str:
    """Return which operation solves a problem, where it takes one alone: by its equation (SVAMP), or else by its worked steps.

    >>> operation_of(Task("How many are left?", "5", worked="7 - 2 = 5\\nThe answer is 5."))
    'one_subtraction'
    """
    lines = (task.worked or "").splitlines()[:-1]  # the last one is the answer
    worked = task.metadata.get("Equation") or "\n".join(line.partition("=")[0] for line in lines)
    signs = re.findall(r"(?<=\s)[-+*/](?=\s)", worked)
    return OPERATIONS[signs[0]] if len(signs) == 1 else SEVERAL


def reduce_operations(cells: Sequence[Cell], operation: Mapping[str, str]) -> list[dict[str, Any]]:
    """Reduce the cells of practice to a row for each set and operation: accuracy before and after, the gain, and its share of the set's.

    A set is left out where the operation of one of its problems is not known. `of_gain` is the number of right answers that practice adds
    to problems of the operation, of the number that it adds to the set; only where that one is positive.
    """
    rows: list[dict[str, Any]] = []
    for suite in cells[0]["items"] if cells and operation else ():
        before, after = (right_of(cells, model, suite) for model in ("warm_start", "practice"))
        if not before.keys() <= operation.keys():
            continue
        added = sum(map(sum, after.values())) - sum(map(sum, before.values()))
        for name in (*OPERATIONS.values(), SEVERAL):
            if keys := [key for key in before if operation[key] == name]:
                own = _row({key: before[key] for key in keys}, {key: after[key] for key in keys})
                of_gain = {"of_gain": own["added"] / added} if added > 0 else {}
                rows.append({"id": name, "set": suite, "n": len(keys), "seeds": len(cells)} | own | of_gain)
    return rows


def _row(before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Compare the answers to problems, by key, each with a 0 or 1 of every seed."""
    (before_each, before_shares), (after_each, after_shares) = map(_shares, (before, after))
    return {
        **mean_share("before", before_shares),
        **mean_share("after", after_shares),
        "added": sum(map(sum, after.values())) - sum(map(sum, before.values())),
        **difference("gain", before, after),
        **over_runs("gain", differences(before_each, after_each)),
    }


def _shares(right: Mapping[str, Sequence[int]]) -> tuple[list[float], list[float]]:
    """Return the share of right answers of each seed, and that of each problem."""
    return [fmean(bits) for bits in zip(*right.values(), strict=True)], [fmean(bits) for bits in right.values()]


def show(rows: Sequence[Row]) -> str:
    """Write two tables: the arms, and practice by operation."""
    return "\n".join([arms_table(of_arms(rows)), *([operations_table(own)] if (own := of_operations(rows)) else [])])


def operations_table(rows: Sequence[Row]) -> str:
    """Write one line a set and operation."""
    columns = [
        Column("set", itemgetter("set")),
        Column("problems of", name_of),
        Column("n", value("n")),
        Column("warm start", interval("before", percent)),
        Column("practice", interval("after", percent)),
        Column("gain [items]", interval("gain", points)),
        Column("gain per seed [runs]", each_over_runs("gain", points)),
        Column("of the set's gain", value("of_gain", percent), needs="of_gain"),
    ]
    below = f"Greedy answers, {seeds_of(rows)}. 95 % intervals, of which there are many: [items] over problems, [runs] over seeds (t)."
    return table(rows, columns, below)


def of_arms(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of arms."""
    return [row for row in rows if not is_of_operation(row)]


def of_operations(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of practice by operation."""
    return [row for row in rows if is_of_operation(row)]


def is_of_operation(row: Row) -> bool:
    """Return whether a row is of one operation."""
    return row["id"] in (*OPERATIONS.values(), SEVERAL)


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Draw the arms."""
    return figures.draw(of_arms(rows), path)


RESTS_ON = {
    "practice's gain": ("practice", "gain"),
    "its lead on random scores": ("random_reward", "practice_ahead"),
    "its lead on a longer warm start": ("longer_warm_start", "practice_ahead"),
}


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the differences of each seed that the verdict rests on, by set."""
    sets = dict.fromkeys(row["set"] for row in rows)
    return {f"{said}, {name}": own for name in sets for said, own in compared(of_arms(rows), RESTS_ON, name).items()}


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="word_problems and svamp",
    rule=f"on each set practice gains, with p < 0.01 over items, and is ahead of both controls, {RULE}",
    compared=rests_on,
    changed=Changed(
        "undecided", "2026-12-02, after the cells: gains and leads are judged by runs, where they were by intervals over items"
    ),
    remarks=(
        "Random scores had 56 steps, practice 136.",
        "The files are not shuffled, so the first problems, of which samples are, differ from the rest.",
    ),
)

if __name__ == "__main__":
    STUDY.main()
