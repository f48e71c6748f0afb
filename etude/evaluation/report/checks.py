"""Checks of the model during practice, from the metrics of callbacks.

A callback with a check reports `NAME/passed` (0 or 1), `NAME/held` (the step of a rollback) and its measurements.
"""

from collections.abc import Mapping
from typing import Any

from etude.evaluation.report.number_format import is_number
from etude.evaluation.report.run_folder import Run

_PASSED = "/passed"


def checks_of(run: Run) -> list[dict[str, Any]]:
    """Return the metrics of the steps with a check; the check's metrics are named without the callback's name."""
    found = []
    for row in run.steps:
        names = [name.removesuffix(_PASSED) for name in row if name.endswith(_PASSED)]
        for name in names:
            own = {metric.removeprefix(f"{name}/"): value for metric, value in row.items() if metric.startswith(f"{name}/")}
            if is_number(own["passed"]) and is_number(own.get("held")):
                found.append({"phase": None, "step": None, **row, **own})
    return found


def check_outcome(check: Mapping[str, Any]) -> str:
    """Describe the consequence of a check."""
    return "passed" if check["passed"] else f"rolled back to step {check['held']}"
