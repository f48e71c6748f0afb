"""Runs that SIGKILL hits at random resume to the same bytes; `python tests/recipes/kills.py 20` tries more."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("kills", "parts"), [(2, ("plain", "adapt")), (1, ("alone", "diverse", "kept"))])
def test_runs_that_are_killed_anywhere_resume_to_the_same_bytes(kills, parts):
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), str(kills), "0", *parts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    equal = f"{kills} of {kills} resumed runs equal the undisturbed one"
    assert done.stdout.count(equal) == len(parts), done.stdout + done.stderr
