"""Does practice add skill? The quickstart recipe against its controls, from the same warm start, three seeds.

    python -m studies.quickstart [--hours H] [--only ID ...] [--tiny]

Claim: practice adds at least 10 points of greedy accuracy to the warm start on every seed, 15 on average, paired p < 0.001 pooled; random
scores add less than 2 points (upper end of the interval); practice stays ahead of both random scores and a longer warm start (lower end).
Imitation of own right attempts is practice of another kind: its row stands beside, the claim does not depend on it. Seeds 10 to 12, since
0 and 1 were looked at while choosing settings.
Wall-clock of each arm's training stands in its row (`training_seconds`, warm start included).
"""

from studies.arms import ARMS, TINY, Arms, all_there, reduce_arms
from studies.cells import Options, compute, options, write_result

CLAIM = (
    "practice adds >= 10 points of greedy accuracy over the warm start on each of three seeds and >= 15 on average; "
    "random scores add nothing, a longer warm start less"
)
SEEDS = (10, 11, 12)
STEPS = {"longer_warm_start": 120}


def main(chosen: Options) -> None:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else ("quickstart", STEPS, {})
    seeds = chosen.seeds if chosen.is_tiny else SEEDS
    todo = [(arm, seed) for seed in seeds for arm in ARMS]
    cells = compute(todo, Arms(recipe, steps, overrides), chosen)
    rows = reduce_arms(cells)
    verdict, because = judge(rows, len(seeds))
    write_result(chosen, CLAIM, cells, rows, verdict, because)


def judge(rows: list[dict], seeds: int) -> tuple[str, str]:
    """The verdict on the claim, from the rows alone."""
    found = {row["id"]: row for row in rows}
    if not all_there(rows, seeds):
        return "undecided", "not all cells are there"
    practice, random, longer = (found[arm] for arm in ("practice", "random_reward", "longer_warm_start"))
    parts = {
        "practice adds >= 10 points on each seed": min(practice["gain_each_seed"]) >= 0.10,
        "practice adds >= 15 points on average, p < 0.001": practice["gain"] >= 0.15 and practice["gain_p"] < 0.001,
        "random scores add < 2 points": random["gain_high"] < 0.02,
        "practice is ahead of random scores": random["practice_ahead_low"] > 0,
        "practice is ahead of a longer warm start": longer["practice_ahead_low"] > 0,
    }
    said = [f"{arm} {100 * found[arm]['gain']:+.1f} points (p = {found[arm]['gain_p']:.1g})" for arm in ARMS]
    said += [f"{'holds' if is_so else 'does not hold'}: {part}" for part, is_so in parts.items()]
    return ("holds" if all(parts.values()) else "does not hold"), "; ".join(said)


if __name__ == "__main__":
    main(options("quickstart", ARMS, SEEDS))
