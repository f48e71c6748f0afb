"""How should a model explore, and how finely be told what went well? Ways to practise from one warm start, at equal tokens sampled.

    python -m studies.exploration [--data DIR] [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

Screen: every arm on number_sorting, one seed. Final: the best three of the screen, the policy gradient and the random control on all sets,
three seeds; on number_sorting also the policy gradient as the recipes have it (`_standardised`). Each arm practises until it has sampled
its set's budget of tokens, with the set's own settings otherwise; learning rates are the recipe's, constant behind three steps,
for all. Cells stand in a folder for each set. The policy gradient's advantage is a score less its group's mean, as credit of steps is not
divided by a deviation either; the recipes divide it. Reversing words is what a rule could do: it asks how fast a way to explore finds that,
not for reasoning.

Claim: at equal tokens sampled, one way to explore beats the policy gradient on independent samples on at least two of four test sets, each
by runs (`experiments.runs`). Two of the sets, `test` and SVAMP, are asked of the same runs. Until 2026-12-02 a lead was one outside the
interval over items. The baseline was chosen after the screen: against the divided advantage of the recipes imitation is not ahead on
number_sorting, which the verdict tells. Cells of Monte-Carlo credit and of the step model were withdrawn, since they were computed by a
rule that was no policy gradient: the verdict waits for them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from experiments.arms import TINY_RUN, Arms, reduce_arms
from experiments.arms_table import arms_table
from experiments.cells import Cell, Options, compute
from experiments.measures import Verdict
from experiments.runs import RULE, in_points, is_above
from experiments.study import Changed, Compared, Found, Study
from experiments.tables import Row

BASELINE = "policy_gradient"
AHEAD = f"{BASELINE}_ahead_each_seed"
DIVIDED = f"{BASELINE}_standardised"
CLAIM = f"at equal tokens sampled one way to explore beats {BASELINE} on at least two of four test sets"

CENTRED = {"learn.advantage": "dr_grpo"}
STEPS = {"rollout.search.steps.end": "tokens", "rollout.search.steps.max_tokens": 6}
"""Answers of a line are cut into pieces of so many tokens."""
VINE = STEPS | {"rollout.search.method": "vine", "rollout.search.chains": 2, "rollout.search.width": 2, "learn.advantage": "vineppo"}
TREE = {"rollout.search.method": "tree", "rollout.search.chains": 6, "rollout.search.forks": 1, "rollout.search.width": 1}
DPO = {"learn.method": "preference", "learn.preference.pairs_per_task": 4, "learn.preference.ref_model_sync_steps": 8}
RESTART = {
    "learn.reset_to_initial_each_step": True,
    "learn.include_solved_groups": True,
    "learn.minibatches_per_epoch": 16,
    "learn.epochs": 2,
    "rollout.tasks_per_step": 128,
}

ARMS: dict[str, dict[str, Any]] = {
    "warm_start": {"steps": 0},
    "raft": {"learn.method": "imitation"},
    "star_rationalised": {"learn.method": "imitation", "rationalize": True} | RESTART,
    "dpo_groups": DPO,
    "step_dpo_trees": TREE | DPO | {"learn.preference.pairs": "step"},
    "policy_gradient": CENTRED,
    "policy_gradient_standardised": {},
    "policy_gradient_refine": CENTRED | {"rollout.search.method": "refine"},
    "policy_gradient_mc_steps": VINE,
    "policy_gradient_step_model": STEPS | {"step_model": True, "learn.advantage": "vineppo"},
    "policy_gradient_tree": TREE | {"learn.advantage": "treerl"},
    "policy_gradient_random_reward": CENTRED | {"reward": "random"},
}
BEST = ("raft", "policy_gradient_mc_steps", "policy_gradient_step_model")
"""The three highest of the screen beside the policy gradient."""
FINAL = (BASELINE, *BEST, "policy_gradient_random_reward")
SCREEN_SEED, SEEDS = 30, (31, 32, 33)

ALL_SETS = {"steps": 1000, "learn.optimizer.lr_scheduler": "constant", "learn.optimizer.decay_steps": None, "save_steps": 25}
REVERSAL = {
    "tasks.family": "word_sequence_reversal",
    "tasks.parameters": {"min_words": 4, "max_words": 6},
    "tasks.question": "Reverse this list of words: {words}",
    "rollout.max_new_tokens": 32,  # the recipe's, which is its family's
}
SETS: dict[str, tuple[str, dict[str, Any]]] = {
    "number_sorting": ("number_sorting", {"n": 800, "token_budget.tokens": 120_000}),
    "word_reversal": ("number_sorting", REVERSAL | {"n": 800, "token_budget.tokens": 120_000}),
    "word_problems": ("word_problems", {"token_budget.tokens": 200_000}),
}
"""Which recipe practises for a set, and what it has otherwise. Word problems are two test sets, and the other families one each."""
TINY_ARMS = ("warm_start", "star_rationalised", "step_dpo_trees", BASELINE, "policy_gradient_refine", "policy_gradient_step_model")
"""One of each kind."""
TINY = TINY_RUN | {"learn.minibatches_per_epoch": 2}


def find(chosen: Options) -> Found:
    sets = {"tiny": ("tiny", TINY)} if chosen.is_tiny else SETS
    cells, screened, rows = [], [], []
    for name, (recipe, overrides) in sets.items():
        arms = {arm: changes | (TINY if chosen.is_tiny else {}) for arm, changes in ARMS.items()}
        arms["warm_start"] |= {"steps": 0}
        table = Arms(recipe, {}, overrides if chosen.is_tiny else ALL_SETS | overrides, arms)
        is_without = recipe == "word_problems" and chosen.data is None
        if is_without:
            print(f"{name}: no cell is computed without --data DIR, the folder that holds word_problems and svamp")
        found = compute([] if is_without else todo(name, chosen), table, replace(chosen, out=chosen.out / name))
        cells += found
        screened += _rows([cell for cell in found if cell["seed"] == SCREEN_SEED], recipe, f"screen: {name}")
        rows += _rows([cell for cell in found if cell["seed"] in SEEDS], recipe, name)
    return cells, screened + rows, judge(rows)


def _rows(cells: list[Cell], recipe: str, name: str) -> list[dict[str, Any]]:
    """Reduce the cells of a set. A family's suite is called like the recipe, which several sets have, so that it gets the set's name."""
    found = reduce_arms(cells, [arm for arm in ARMS if arm != "warm_start"], BASELINE)
    return [{**row, "set": name if row["set"] == recipe else row["set"]} for row in found]


def todo(name: str, chosen: Options) -> list[tuple[str, int]]:
    """Return the cells of a set: the screen's, then the final's."""
    if chosen.is_tiny:
        return [(arm, SCREEN_SEED) for arm in TINY_ARMS]
    is_screened = name == "number_sorting"
    screen = [(arm, SCREEN_SEED) for arm in ARMS] if is_screened else []
    arms = (*FINAL, "policy_gradient_standardised") if is_screened else FINAL
    return screen + [(arm, seed) for seed in SEEDS for arm in arms]


def judge(rows: Sequence[Row]) -> Verdict:
    """Judge the claim by the final's rows alone. An arm that sampled over 5 % more than the baseline is ahead nowhere."""
    found = {(row["id"], row["set"]): row for row in rows}
    sets = list(dict.fromkeys(row["set"] for row in rows))
    lacks = [arm for arm in FINAL if any(found.get((arm, name), {"seeds": 0})["seeds"] < len(SEEDS) for name in sets)]
    won = {arm: [_is_ahead(found[arm, name], found[BASELINE, name]) for name in sets] for arm in BEST if not {arm, BASELINE} & {*lacks}}
    said = [f"{arm} on {name} {in_points(_lead(found[arm, name]))}" for arm in won for name in sets]
    if ("raft", "number_sorting") in found and (DIVIDED, "number_sorting") in found:
        raft, divided = (found[arm, "number_sorting"]["accuracy_each_seed"] for arm in ("raft", DIVIDED))
        apart = [own - its for own, its in zip(raft, divided, strict=False)]
        said.append(f"against the divided advantage of the recipes raft is {in_points(apart)} on number_sorting")
    if len(sets) < 4 or lacks:
        return "undecided", "; ".join([f"not all cells are there: {', '.join(lacks) or 'sets'}", *said])
    if any(own.count(True) >= 2 for own in won.values()):
        return "holds", "; ".join(said)
    return ("undecided" if any(len(own) - own.count(False) >= 2 for own in won.values()) else "does not hold"), "; ".join(said)


def _lead(row: Row) -> list[float]:
    """Return how far an arm is ahead of the baseline on each seed."""
    return [-value for value in row[AHEAD]]


def _is_ahead(row: Row, baseline: Row) -> bool | None:
    return is_above(_lead(row)) if row["sampled_tokens"] <= 1.05 * baseline["sampled_tokens"] else False


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the leads of the arms that are judged, by set."""
    own = [row for row in rows if row["id"] in BEST and row["seeds"] == len(SEEDS) and AHEAD in row]
    return {f"{row['id']}'s lead on {row['set']}": Compared(row[AHEAD]) for row in own}


SCREENED = (
    "The screen is one seed, and cannot tell ways apart that lie less than about 8 points from each other. Its rows `policy gradient "
    "tree` and `step dpo trees` were computed before a fix of how trees branch (two branches at one position branched once): they do "
    "not speak of these methods as they are now."
)
STUDY = Study(
    __file__,
    CLAIM,
    tuple(ARMS),
    (SCREEN_SEED, *SEEDS),
    find,
    partial(arms_table, baseline=BASELINE),
    rule=f"some arm of {', '.join(BEST)} is ahead of {BASELINE} on two of the four sets, each {RULE}, with at most 5 % more tokens sampled",
    compared=rests_on,
    changed=Changed(
        "holds",
        "2026-12-02, after the cells: leads are judged by runs, where they were by intervals over items; the verdict before is that "
        "with the cells that were withdrawn",
    ),
    remarks=[SCREENED],
)

if __name__ == "__main__":
    STUDY.main()
