"""Does practice on gold answers teach which calculation a word problem takes, once a calculator does the sums? Five seeds.

    python -m studies.calculator --data DIR [--hours H] [--only ID ...] [--seeds SEED ...] [--tiny]

`studies.word_problems` found that practice learned additions: 65 % of its gain on the test set are problems that one addition solves, and
those of one subtraction gained nothing. Is it sums that a model of this size can't do, or which of them to do that it does not learn?
Here the verifier is `calculator`, in practice and in the evaluation: an answer that is the result of an equation counts as what the
equation comes to, whatever the model wrote. All else is that study's, with half of its steps: arms, warm start of 200 worked problems, test
sets, operations.

Claim, judged by runs (`experiments.runs`): practice raises greedy accuracy on the test problems and on SVAMP over the warm start, on each
it is ahead of random scores and of a longer warm start, and problems of the test set that one subtraction solves gain. Imitation of own
right attempts stands beside. The rule was written before any cell. The longer warm start takes about as long as practice; random scores
have 28 steps where practice has 68, since none of their groups is dropped. Power: with a standard deviation of 4
points between the differences of seeds, five show a gain or lead of 7 points in 80 % of studies.
"""

from collections.abc import Sequence

from experiments.arms import ARMS, TINY, Arms, all_there, reduce_arms
from experiments.cells import Options, compute
from experiments.measures import Verdict, all_hold, undecided
from experiments.runs import RULE, in_points, is_above
from experiments.study import Compared, Found, Study
from experiments.tables import Row
from studies import word_problems
from studies.word_problems import CONTROLS, RECIPE, draw, of_arms, operations, reduce_operations, show

CLAIM = (
    "with a calculator, practice on gold answers teaches which calculation a word problem takes: it gains on word_problems test and SVAMP, "
    "beyond random scores and a longer warm start, also on problems that one subtraction solves"
)
SEEDS = tuple(range(160, 165))
STEPS = {"longer_warm_start": 175, "random_reward": 28}
RUN = {"tasks.verifier": "calculator", "steps": 68, "learn.optimizer.decay_steps": 145}
HARD = ("one_subtraction", "test")
"""Problems on which practice gained nothing without the calculator, and their set."""


def find(chosen: Options) -> Found:
    recipe, steps, overrides = ("tiny", {"longer_warm_start": 40}, TINY) if chosen.is_tiny else (RECIPE, STEPS, RUN)
    cells = compute([(arm, seed) for seed in chosen.seeds for arm in ARMS], Arms(recipe, steps, overrides), chosen)
    practised = [cell for cell in cells if cell["id"] == "practice"]
    rows = [*reduce_arms(cells), *reduce_operations(practised, operations(chosen))]
    return cells, rows, judge(rows) if not chosen.is_tiny else undecided()


def judge(rows: Sequence[Row], seeds: int = len(SEEDS)) -> Verdict:
    """Judge the claim by the rows alone."""
    if not all_there(of_arms(rows), seeds):
        return undecided()
    found = {(row["id"], row["set"]): row for row in rows}
    parts: dict[str, bool | None] = {}
    for row in (row for row in rows if row["id"] == "practice"):
        gains = row["gain_each_seed"]
        parts[f"{row['set']}: practice gains ({in_points(gains)})"] = is_above(gains)
        for control in CONTROLS:
            ahead = found[control, row["set"]]["practice_ahead_each_seed"]
            parts[f"{row['set']}: it is ahead of {control} ({in_points(ahead)})"] = is_above(ahead)
    gains = found.get(HARD, {}).get("gain_each_seed")
    parts[f"problems of one subtraction gain ({in_points(gains) if gains else 'operations unknown'})"] = is_above(gains) if gains else None
    return all_hold(parts)


def rests_on(rows: Sequence[Row]) -> dict[str, Compared]:
    """Return the differences of each seed that the verdict rests on."""
    hard = next((row["gain_each_seed"] for row in rows if (row["id"], row["set"]) == HARD), None)
    return word_problems.rests_on(rows) | ({"gain on problems of one subtraction": Compared(hard)} if hard else {})


STUDY = Study(
    __file__,
    CLAIM,
    ARMS,
    SEEDS,
    find,
    show,
    draw,
    data="word_problems and svamp",
    rule=f"on each set practice gains and is ahead of both controls, and problems of the test set of one subtraction gain, each {RULE}",
    compared=rests_on,
)

if __name__ == "__main__":
    STUDY.main()
