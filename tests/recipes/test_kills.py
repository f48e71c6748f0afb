"""Runs that SIGKILL hits at random resume to the same bytes; `python tests/recipes/kills.py 20` tries more, and more parts."""

import subprocess
import sys
from pathlib import Path

PARTS = ("plain", "adapt")


def test_runs_that_are_killed_anywhere_resume_to_the_same_bytes():
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), "1", "0", *PARTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 of 1 resumed runs equal the undisturbed one") == len(PARTS), done.stdout + done.stderr
