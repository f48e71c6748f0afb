"""Runs that SIGKILL hits at random resume to the same bytes; `python tests/recipes/kills.py 20` tries more."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("part", ["plain", "alone", "diverse", "kept"])
def test_a_run_that_is_killed_anywhere_resumes_to_the_same_bytes(part):
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), "2", "0", part], capture_output=True, text=True)
    assert done.returncode == 0 and "2 of 2 resumed runs equal the undisturbed one" in done.stdout, done.stdout + done.stderr
