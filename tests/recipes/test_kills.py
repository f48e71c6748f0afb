"""Runs that SIGKILL hits at random resume to the same bytes; `python tests/recipes/kills.py 20` tries more."""

import subprocess
import sys
from pathlib import Path


def test_a_run_that_is_killed_anywhere_resumes_to_the_same_bytes():
    script = Path(__file__).with_name("kills.py")
    done = subprocess.run([sys.executable, str(script), "3", "0"], capture_output=True, text=True)
    assert done.returncode == 0 and "3 of 3 resumed runs equal the undisturbed one" in done.stdout, done.stdout + done.stderr
