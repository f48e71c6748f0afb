"""Checks of the model during practice: the steps whose metrics say whether it passed one, which a callback reports.

A callback that checks reports `NAME/passed` (0 or 1), `NAME/held` (the step to roll back to) and what it measured.
"""

from collections.abc import Mapping
from typing import Any

from etude.evaluation.report.number_format import is_number
from etude.evaluation.report.run_folder import Run

_PASSED = "/passed"


def checks_of(run: Run) -> list[dict[str, Any]]:
    """Return the metrics of the steps with a check; those of the check by their names without the callback's."""
    found = []
    for row in run.steps:
        names = [name.removesuffix(_PASSED) for name in row if name.endswith(_PASSED)]
        for name in names:
            own = {metric.removeprefix(f"{name}/"): value for metric, value in row.items() if metric.startswith(f"{name}/")}
            if is_number(own["passed"]) and is_number(own.get("held")):
                found.append({"phase": None, "step": None, **row, **own})
    return found


def check_outcome(check: Mapping[str, Any]) -> str:
    """Say what followed from a check."""
    return "passed" if check["passed"] else f"rolled back to step {check['held']}"
