"""What the page says in sentences: what practice did, and what a reader must know before trusting the numbers."""

import re
from collections.abc import Mapping
from typing import Any

from etude.evaluation.report.numbers import (
    FIXED_SPACE,
    MISSING,
    THIN_SPACE,
    interval,
    is_number,
    p_value,
    percent,
    plain,
    points,
    points_interval,
)
from etude.evaluation.report.run_folder import MODELS, Run
from etude.evaluation.report.tables import baselines_of


def summary(run: Run) -> str:
    """One sentence: what practice did to greedy accuracy, with n, interval and p."""
    found = {(row.get("suite"), row.get("model")): row for row in run.rows}
    for suite in dict.fromkeys(row.get("suite") for row in run.rows):
        after = found.get((suite, "practice"))
        first = next((model for model in ("preference", "warm_start", "base") if (suite, model) in found), None)
        if after is None or first is None:
            continue
        test = next(
            (t for t in run.result.get("paired") or () if (t.get("suite"), t.get("first"), t.get("second")) == (suite, first, "practice")),
            None,
        )
        start, end = percent(found[suite, first].get("accuracy")), percent(after.get("accuracy"))
        if test is None:
            return f"Greedy accuracy on {suite} went from {start} ({MODELS[first]}) to {end} (practice), without a paired test."
        return (
            f"Practice {_verb(test)} greedy accuracy on {suite}: from {start} ({MODELS[first]}) to {end}, "
            f"{points(test.get('difference'))} points, "
            f"95{THIN_SPACE}% interval {points_interval(test.get('difference_low'), test.get('difference_high'))}, "
            f"n{FIXED_SPACE}={FIXED_SPACE}{plain(test.get('n'))}, p{FIXED_SPACE}{p_value(test.get('p_value'), relation=True)}."
        )
    return _adapted(run) or _progress(run)


def _adapted(run: Run) -> str:
    """What a run that adapted a model says of the domain's questions, or nothing."""
    change = next((row for row in run.result.get("changes") or () if row.get("part") == "choices"), None)
    if change is None:
        return ""
    return (
        f"Adaptation {_verb(change)} the accuracy on {change.get('name')}, by likelihood: from {percent(change.get('before'))} to "
        f"{percent(change.get('after'))}, {points(change.get('difference'))} points, 95{THIN_SPACE}% interval "
        f"{points_interval(change.get('low'), change.get('high'))}, n{FIXED_SPACE}={FIXED_SPACE}{plain(change.get('n'))}, "
        f"p{FIXED_SPACE}{p_value(change.get('p_value'), relation=True)}."
    )


def _progress(run: Run) -> str:
    """The sentence of a run that has nothing to compare: how far it is, or what it measured."""
    last = max((row["step"] for row in run.steps if row.get("phase") == "practice" and is_number(row.get("step"))), default=None)
    if last is not None:
        return f"Practice has reached step {last}; there is no evaluation before and after it to compare yet."
    if run.rows:
        row = run.rows[-1]
        return (
            f"Greedy accuracy on {row.get('suite')} is {percent(row.get('accuracy'))} ({spaced(row.get('model'))}), "
            f"95{THIN_SPACE}% interval {interval(row.get('accuracy_low'), row.get('accuracy_high')) or MISSING}, "
            f"n{FIXED_SPACE}={FIXED_SPACE}{plain(row.get('n'))}."
        )
    return "Practice has not taken a step yet, and nothing has been evaluated."


def _verb(test: Mapping[str, Any]) -> str:
    """`raised` and `lowered` are for p < 0.05; anything else did not measurably change."""
    p, difference = test.get("p_value"), test.get("difference")
    if not (is_number(p) and is_number(difference)) or p >= 0.05:
        return "did not measurably change"
    return "raised" if difference > 0 else "lowered"


def remarks_on(run: Run) -> list[str]:
    """What a reader must know before trusting the numbers."""
    remarks = []
    if not run.is_finished:
        remarks.append(f"This run is not finished (status: {run.result.get('status') or 'unknown'}). The page shows what there is so far.")
    for row in run.rows:
        best = max(baselines_of(row).values(), default=None)
        if row.get("model") == "practice" and best is not None and is_number(row.get("accuracy")) and best >= row["accuracy"]:
            reached = percent(row["accuracy"])
            remarks.append(f"On {row.get('suite')} a trivial baseline ({percent(best)}) does at least as well as practice ({reached}).")
    collapse = run.result.get("collapse")
    if isinstance(collapse, Mapping):
        done = {"stop": "practice ended there", "fall_back": "practice ended with what it was before"}
        ended = done.get(str(collapse.get("action")), "practice went on")
        remarks.append(f"Signs of a {collapse.get('words')}; {ended}.")
    if run.notes:
        remarks.append(f"Files: {'; '.join(run.notes)}.")
    return remarks


def spaced(name: Any) -> str:
    """warm_start -> warm start."""
    return re.sub(r"[_\s]+", " ", str(name)).strip()
