"""Does practice make longer thought pay? Accuracy against the length of thought, before practice and after it.

    python -m studies.long_thought [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

Chains of sums (the recipe long_thought): from one warm start that shows running totals, and checks of them behind "Wait", practice on the
verifier's scores, the same with control of length, and on random scores. Length control lowers scores by up to a half in the last 52 of 104
tokens, where answers without a check do not come, and leaves out what was cut off.
Each model answers the same tasks greedily, as it likes (`free`), and behind thoughts of 8, 16, 32 and 64 tokens (`etude.rollouts.thought`).
A task's slope is that of right (1) or not (0) over the logarithm of the length, to base 2: what a doubling of the thought adds. Differences
are paired over tasks, intervals (95 %) over tasks.

Claim: a doubling of the thought adds more accuracy after practice than before it, and practice on random scores adds less to that: the
slope's gain by practice is above 0 by runs (`experiments.runs`), and its lead over random scores too. Until 2026-12-02 both were judged by
intervals over tasks. With next to nothing right behind the shortest thoughts a slope grows with accuracy itself, so that it is read beside
its share of the accuracy behind the longest thought (`slope_share`), which is no part of the rule.
"""

from collections.abc import Callable, Sequence
from math import log2
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from experiments.arms import Arms
from experiments.cells import Cell, Options, compute
from experiments.figures import save
from experiments.measures import Verdict, all_hold, lacking, mean, mean_share, undecided
from experiments.runs import RULE, in_points, is_above, over_runs
from experiments.study import Changed, Found, Study, compared
from experiments.tables import Column, Row, each, each_over_runs, interval, percent, points, seeds_of, table, value

CLAIM = "a doubling of the thought adds more accuracy after practice than before it, and more so than after practice on random scores"
SEEDS = (60, 61, 62)
BUDGETS = (8, 16, 32, 64)
MEASURED = {"evaluation.thought.budgets": list(BUDGETS), "evaluation.pass_n": 100, "evaluation.n": 500, "retention.probe": False}
LENGTH = {
    "overlong_penalty.buffer_tokens": 52,
    "overlong_penalty.penalty_weight": 0.5,
    "overlong_penalty.mask_truncated_completions": True,
}
CHANGES: dict[str, dict[str, Any]] = {
    "practice": {},
    "practice_length_control": LENGTH,
    "random_reward": {"reward": "random"},
}
ROWS = ("warm_start", *CHANGES)
TINY_BUDGETS = (1, 4)
TINY = {
    "n": 40,
    "warm_start.steps": 10,
    "steps": 2,
    "rollout.tasks_per_step": 4,
    "rollout.num_samples": 4,
    "evaluation.n": 10,
    "evaluation.pass_n": 4,
    "evaluation.num_samples": 2,
    "evaluation.thought.budgets": list(TINY_BUDGETS),
    "evaluation.thought.answer_tokens": 3,
}
TINY_CHANGES = CHANGES | {"practice_length_control": LENGTH | {"overlong_penalty.buffer_tokens": 2}}

Answers = dict[str, list[list[int]]]
"""Of every item, for each seed that had it, whether it was right: as the model liked, then at each budget."""


# ---------------------------------------------------------------------- from cells to rows


def reduce(cells: Sequence[Cell], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Reduce cells, for each model, to a row of free answers with its slope, and one for each budget."""
    rows = []
    for arm in ROWS:
        own = [cell for cell in cells if cell["id"] == ("practice" if arm == "warm_start" else arm)]
        for suite in own[0]["items"] if own else ():
            rows += _rows(arm, suite, own, [cell for cell in cells if cell["id"] == "random_reward"], budgets)
    return rows


def _rows(arm: str, suite: str, own: Sequence[Cell], controls: Sequence[Cell], budgets: Sequence[int]) -> list[dict[str, Any]]:
    model = "warm_start" if arm == "warm_start" else "practice"
    answers = answers_of(own, model, suite)
    kind = {"set": suite, "n": len(answers), "seeds": len(own)}
    rows = []
    for place, budget in enumerate((None, *budgets)):
        shares = [fmean(right[place] for right in rights) for rights in answers.values()]
        found = [_measured(cell, model, suite, budget) for cell in own]
        row = {"id": f"{arm}_{'free' if budget is None else budget}", **kind, **mean_share("accuracy", shares)}
        row |= {name: fmean(each[name] for each in found) for name in found[0]}
        rows.append(row | {"budget_tokens": budget})
    slopes = slopes_of(answers, budgets)
    rows[0] |= mean("slope", slopes.values())
    rows[0]["slope_share_each_seed"] = [_slope_share(answers_of([cell], model, suite), budgets) for cell in own]
    if arm == "warm_start":
        return rows
    gains = gains_of(own, suite, budgets)
    rows[0] |= mean("slope_gain", gains.values())
    by_seed = {cell["seed"]: fmean(gains_of([cell], suite, budgets).values()) for cell in own}
    rows[0] |= over_runs("slope_gain", list(by_seed.values()))
    same = [cell for cell in controls if cell["seed"] in {each["seed"] for each in own}]
    if arm != "random_reward" and same:
        paired = gains_of([cell for cell in own if cell["seed"] in {each["seed"] for each in same}], suite, budgets)
        control = gains_of(same, suite, budgets)
        rows[0] |= mean("random_reward_behind", [paired[key] - control[key] for key in paired if key in control])
        behind = [by_seed[cell["seed"]] - fmean(gains_of([cell], suite, budgets).values()) for cell in same]
        rows[0] |= over_runs("random_reward_behind", behind)
    return rows


def answers_of(cells: Sequence[Cell], model: str, suite: str) -> Answers:
    found: Answers = {}
    for cell in cells:
        columns = [cell["right"][model][suite], *cell["thought"][model][suite]]
        for key, bits in zip(cell["items"][suite].split(), zip(*columns, strict=True), strict=True):
            found.setdefault(key, []).append([int(bit) for bit in bits])
    return found


def slopes_of(answers: Answers, budgets: Sequence[int]) -> dict[str, float]:
    """Return of every item the least-squares slope of right answers over log2 of the budget, the mean of its seeds."""
    lengths = [log2(budget) for budget in budgets]
    centred = [length - fmean(lengths) for length in lengths]
    weights = [each / sum(other * other for other in centred) for each in centred]
    return {
        key: fmean(sum(weight * bit for weight, bit in zip(weights, right[1:], strict=True)) for right in rights)
        for key, rights in answers.items()
    }


def _slope_share(answers: Answers, budgets: Sequence[int]) -> float | None:
    """Return the slope as a share of the accuracy behind the longest thought; None where nothing is right there."""
    longest = fmean(right[-1] for rights in answers.values() for right in rights)
    return round(fmean(slopes_of(answers, budgets).values()) / longest, 4) if longest else None


def gains_of(cells: Sequence[Cell], suite: str, budgets: Sequence[int]) -> dict[str, float]:
    """Return what practice added to the slope of every item."""
    before, after = (slopes_of(answers_of(cells, model, suite), budgets) for model in ("warm_start", "practice"))
    return {key: after[key] - before[key] for key in before}


def _measured(cell: Cell, model: str, suite: str, budget: int | None) -> dict[str, float]:
    """Return the tokens of an answer, and of thoughts of a fixed length how they ended."""
    row = next(row for row in cell["evaluation"] if row["suite"] == suite and row["model"] == model)
    if budget is None:
        return {"tokens": row["mean_tokens"]}
    forced = next(each for each in row["thought"] if each["budget_tokens"] == budget)
    return {"tokens": forced["own_tokens"], "extended": forced["extended"], "cut": forced["cut"]}


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {row["id"]: row for row in rows}
    if missing := lacking(found, [f"{arm}_free" for arm in ROWS], len(SEEDS)):
        return undecided(missing)
    before, practice = found["warm_start_free"], found["practice_free"]
    said = [f"a doubling adds {100 * before['slope']:+.1f} points at the warm start"]
    said += [f"{100 * found[f'{arm}_free']['slope']:+.1f} after {arm.replace('_', ' ')}" for arm in CHANGES]
    shares = [", ".join(f"{share:.2f}" for share in row["slope_share_each_seed"]) for row in (before, practice)]
    said.append(f"as a share of the accuracy behind the longest thought {shares[0]} before and {shares[1]} after practice, by seed")
    gains, lead = practice["slope_gain_each_seed"], practice["random_reward_behind_each_seed"]
    parts = {
        f"more after practice than before ({in_points(gains)})": is_above(gains),
        f"more than by random scores ({in_points(lead)})": is_above(lead),
    }
    return all_hold(parts, said)


def show(rows: Sequence[Row]) -> str:
    """Write one line a model: right answers as it likes and after thoughts of each length, and what a doubling of the thought adds."""
    budgets = list(dict.fromkeys(row["budget_tokens"] for row in rows if row["budget_tokens"]))
    found = {(_arm(row), row["budget_tokens"]): row for row in rows}
    right = interval("accuracy", percent)

    def behind(budget: int) -> Callable[[Row], str]:
        return lambda row: right(found[_arm(row), budget])

    columns = [
        Column("model", lambda row: _arm(row).replace("_", " ")),
        Column("free", right),
        Column("tokens", value("tokens", "{:.0f}".format)),
        *(Column(f"behind {budget}", behind(budget)) for budget in budgets),
        Column("a doubling adds", interval("slope", points)),
        Column(f"of the accuracy behind {budgets[-1]}, per seed", each("slope_share_each_seed", _share)),
        Column("more than before [items]", interval("slope_gain", points)),
        Column("per seed [runs]", each_over_runs("slope_gain", points)),
        Column("random reward behind [items]", interval("random_reward_behind", points)),
        Column("per seed [runs]", each_over_runs("random_reward_behind", points)),
    ]
    below = f"{rows[0]['n']:,} items of {rows[0]['set']}, {seeds_of(rows)}; 95 % intervals: over items, [runs] over seeds (t)."
    return table([row for row in rows if not row["budget_tokens"]], columns, below)


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.2f}"


def _arm(row: Row) -> str:
    return str(row["id"]).rpartition("_")[0]


# ---------------------------------------------------------------------- the picture


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against the length of thought, a line a model; rings are free answers, at the tokens that they took."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    for arm, colour in zip(ROWS, ("#9aa3b5", "#1f2a44", "#c2571a", "#3f7d5a"), strict=True):
        own = [row for row in rows if _arm(row) == arm]
        forced, free = [row for row in own if row["budget_tokens"]], [row for row in own if row["budget_tokens"] is None]
        low, high = ([abs(row["accuracy"] - row[f"accuracy_{end}"]) for row in forced] for end in ("low", "high"))
        style: dict[str, Any] = {"color": colour, "capsize": 2, "markersize": 5, "linewidth": 1.2, "elinewidth": 0.8}
        lengths, shares = [row["budget_tokens"] for row in forced], [row["accuracy"] for row in forced]
        axes.errorbar(lengths, shares, yerr=[low, high], fmt="o-", label=arm.replace("_", " "), **style)
        axes.scatter([row["tokens"] for row in free], [row["accuracy"] for row in free], s=44, facecolors="none", edgecolors=colour)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens:.0f}")
    axes.set_xlabel("tokens of thought; rings: free answers, at all their tokens")
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    axes.set_ylim(bottom=0)
    seeds = f"{rows[0]['seeds']} seed{'s' * (rows[0]['seeds'] > 1)}"
    axes.set_title(f"right answers, {rows[0]['set']} (n = {rows[0]['n']:,}, {seeds}, 95 % intervals)", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    save(figure, path)


def find(chosen: Options) -> Found:
    arms = Arms("tiny", {}, TINY, TINY_CHANGES) if chosen.is_tiny else Arms("long_thought", {}, MEASURED, CHANGES)
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in CHANGES], arms, chosen)
    rows = reduce(cells, TINY_BUDGETS if chosen.is_tiny else BUDGETS)
    return cells, rows, judge(rows)


RESTS_ON = {
    "gain of the slope by practice": ("practice_free", "slope_gain"),
    "its lead on random scores": ("practice_free", "random_reward_behind"),
}
STUDY = Study(
    __file__,
    CLAIM,
    tuple(CHANGES),
    SEEDS,
    find,
    show,
    draw,
    rule=f"the gain of the slope by practice, and its lead on that by random scores, are above 0 {RULE}",
    compared=lambda rows: compared(rows, RESTS_ON),
    changed=Changed("holds", "2026-12-02, after the cells: gains are judged by runs, where they were by intervals over items"),
    remarks=[
        "A slope grows with accuracy where short thoughts are right next to never. As a share of the accuracy behind the longest "
        "thought it is about the same before and after practice: a doubling adds no more than accuracy explains."
    ],
)

if __name__ == "__main__":
    STUDY.main()
