"""Every study runs in its tiny form, goes on where it stopped, and its verdict follows from its rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from studies import quickstart

STUDIES = sorted(path.stem for path in Path(quickstart.__file__).parent.glob("*.py") if path.stem not in ("__init__", "cells", "arms"))


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_in_its_tiny_form_and_skips_cells_that_are_there(name, tmp_path):
    command = [sys.executable, "-m", f"studies.{name}", "--tiny", "--out", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert {"claim", "commit", "hardware", "rows", "verdict", "because"} <= result.keys()
    assert {"practice", "random_reward", "imitation", "longer_warm_start"} <= {row["id"] for row in result["rows"]}
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in result["rows"])
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cell practice" in first.stdout and "cell" not in again.stdout


def row(name: str, gain: float, least: float, p_value: float, seeds: int = 3) -> dict:
    return {"id": name, "seeds": seeds, "gain": gain, "gain_each_seed": [least, gain, gain], "p_value": p_value, "practice_ahead_low": 0.1}


def test_the_quickstart_claim_holds_only_where_every_part_of_it_does():
    nothing = row("random_reward", 0.0, -0.01, 0.9)
    assert quickstart.judge([row("practice", 0.16, 0.11, 1e-9), nothing], 3)[0] == "holds"
    assert quickstart.judge([row("practice", 0.16, 0.09, 1e-9), nothing], 3)[0] == "does not hold"
    assert quickstart.judge([row("practice", 0.14, 0.11, 1e-9), nothing], 3)[0] == "does not hold"
    assert quickstart.judge([row("practice", 0.16, 0.11, 1e-2), nothing], 3)[0] == "does not hold"
    assert quickstart.judge([row("practice", 0.16, 0.11, 1e-9), row("random_reward", 0.05, 0.04, 1e-3)], 3)[0] == "does not hold"
    assert quickstart.judge([row("practice", 0.16, 0.11, 1e-9), {**nothing, "practice_ahead_low": -0.01}], 3)[0] == "does not hold"
    assert quickstart.judge([row("practice", 0.16, 0.11, 1e-9, seeds=2), nothing], 3)[0] == "undecided"
