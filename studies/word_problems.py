"""Does practice on answers alone help with real word problems? The word_problems recipe against its controls, three seeds.

    python -m studies.word_problems --data DIR [--hours H] [--only ID ...] [--tiny]

Claim: after a warm start from 200 worked problems, practice on the gold answers of the training problems raises greedy accuracy on the test
problems and on SVAMP, each with paired p < 0.01 pooled over seeds, and stays ahead of random scores and of a longer warm start, both of
about the same time (lower end of the interval). The aim, told beside the verdict, is 1.25 times the warm start's accuracy. Seeds 20 to 22:
seed 10 was looked at with shorter practice before (LOG.md).
"""

from collections.abc import Sequence

from experiments.arms import ARMS, TINY, Arms, all_there, reduce_arms
from experiments.arms_table import arms_table
from experiments.cells import Options, compute
from experiments.measures import Verdict, decided, undecided
from experiments.study import Found, Study
from experiments.tables import Row

CLAIM = (
    "practice on gold answers raises accuracy on word_problems test and SVAMP over the warm start (p < 0.01), "
    "beyond what random scores and a longer warm start do in about the same time; aim: 1.25 times"
)
SEEDS = (20, 21, 22)
STEPS = {"longer_warm_start": 350, "random_reward": 56}
AIM = 1.25


def find(chosen: Options) -> Found:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else ("word_problems", STEPS, {})
    seeds = chosen.seeds if chosen.is_tiny else SEEDS
    cells = compute([(arm, seed) for arm in ARMS for seed in seeds], Arms(recipe, steps, overrides), chosen)
    rows = reduce_arms(cells)
    return cells, rows, judge(rows, len(seeds))


def judge(rows: Sequence[Row], seeds: int) -> Verdict:
    """Judge the claim by the rows alone."""
    if not all_there(rows, seeds):
        return undecided()
    found = {(row["id"], row["set"]): row for row in rows}
    practice = [row for row in rows if row["id"] == "practice"]
    parts = []
    for row in practice:
        warm = found["warm_start", row["set"]]["accuracy"]
        aim = "reached" if row["accuracy"] >= AIM * warm else "missed"
        parts.append(f"{row['set']}: {row['accuracy']:.3f} against {warm:.3f} (p = {row['gain_p']:.2g}, n = {row['n']}, {AIM} times {aim})")
    is_better = all(row["gain"] > 0 and row["gain_p"] < 0.01 for row in practice)
    is_ahead = all(row["practice_ahead_low"] > 0 for row in rows if row["id"] in ("random_reward", "longer_warm_start"))
    return decided(is_better and is_ahead, "; ".join(parts))


STUDY = Study(__file__, CLAIM, ARMS, SEEDS, find, arms_table, data="word_problems and svamp")

if __name__ == "__main__":
    STUDY.main()
