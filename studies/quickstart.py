"""Does practice add skill? The quickstart recipe against its controls, from the same warm start, three seeds.

    python -m studies.quickstart [--hours H] [--only ID ...] [--tiny]

Claim: practice adds at least 10 points of greedy accuracy to the warm start on every seed, 15 on average, paired p < 0.001 pooled; random
scores add less than 2 points (upper end of the interval); practice stays ahead of both random scores and a longer warm start (lower end).
Imitation of own right attempts is practice of another kind: its row stands beside, the claim does not depend on it. Seeds 10 to 12, since
0 and 1 were looked at while choosing settings.
Wall-clock of each arm's training stands in its row (`training_seconds`, warm start included).
"""

from collections.abc import Sequence

from experiments.arms import ARMS, TINY, Arms, all_there, reduce_arms
from experiments.arms_table import arms_table
from experiments.cells import Options, compute
from experiments.measures import Verdict, all_hold, undecided
from experiments.study import Found, Study
from experiments.tables import Row

CLAIM = (
    "practice adds >= 10 points of greedy accuracy over the warm start on each of three seeds and >= 15 on average; "
    "random scores add nothing, a longer warm start less"
)
SEEDS = (10, 11, 12)
STEPS = {"longer_warm_start": 120}


def find(chosen: Options) -> Found:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else ("quickstart", STEPS, {})
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
    parts = {
        "practice adds >= 10 points on each seed": min(practice["gain_each_seed"]) >= 0.10,
        "practice adds >= 15 points on average, p < 0.001": practice["gain"] >= 0.15 and practice["gain_p"] < 0.001,
        "random scores add < 2 points": random["gain_high"] < 0.02,
        "practice is ahead of random scores": random["practice_ahead_low"] > 0,
        "practice is ahead of a longer warm start": longer["practice_ahead_low"] > 0,
    }
    return all_hold(parts, [f"{arm} {100 * found[arm]['gain']:+.1f} points (p = {found[arm]['gain_p']:.1g})" for arm in ARMS])


STUDY = Study(__file__, CLAIM, ARMS, SEEDS, find, arms_table)

if __name__ == "__main__":
    STUDY.main()
