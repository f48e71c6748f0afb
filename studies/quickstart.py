"""Does practice add skill? The quickstart recipe against its controls, from the same warm start, three seeds.

    python -m studies.quickstart [--hours H] [--only ID ...] [--tiny]

Claim: practice adds at least 10 points of greedy accuracy to the warm start on every seed, 15 on average, paired p < 0.001 pooled, and
random scores add less than 2 points and stay behind practice. Seeds 10 to 12, since 0 and 1 were looked at while choosing settings.
Wall-clock of each arm's training stands in its row (`training_seconds`, warm start included).
"""

from studies.arms import ARMS, Arms, reduce_arms
from studies.cells import Options, compute, options, write_result

CLAIM = (
    "practice adds >= 10 points of greedy accuracy over the warm start on each of three seeds and >= 15 on average; random scores do not"
)
SEEDS = (10, 11, 12)
LONGER_STEPS = 120


def main(chosen: Options) -> None:
    recipe, longer, overrides = ("tiny", 60, ["--steps=20"]) if chosen.is_tiny else ("quickstart", LONGER_STEPS, [])
    seeds = SEEDS[:1] if chosen.is_tiny else SEEDS
    todo = [(arm, seed) for seed in seeds for arm in ARMS]
    cells = compute(todo, Arms(recipe, longer, overrides), chosen)
    rows = reduce_arms(cells)
    verdict, because = judge(rows, len(seeds))
    write_result(chosen, CLAIM, cells, rows, verdict, because)


def judge(rows: list[dict], seeds: int) -> tuple[str, str]:
    """The verdict on the claim, from the rows alone."""
    found = {row["id"]: row for row in rows}
    practice, random = found.get("practice"), found.get("random_reward")
    if practice is None or random is None or min(practice["seeds"], random["seeds"]) < seeds:
        return "undecided", "not all cells are there"
    least, mean = min(practice["gain_each_seed"]), practice["gain"]
    said = (
        f"practice {100 * mean:+.1f} points (least seed {100 * least:+.1f}, p = {practice['gain_p']:.1g}), "
        f"random scores {100 * random['gain']:+.1f} (p = {random['gain_p']:.2g})"
    )
    is_better = least >= 0.10 and mean >= 0.15 and practice["gain_p"] < 0.001
    holds = is_better and random["gain"] < 0.02 and random["practice_ahead_low"] > 0
    return ("holds" if holds else "does not hold"), said


if __name__ == "__main__":
    main(options("quickstart", ARMS, SEEDS))
