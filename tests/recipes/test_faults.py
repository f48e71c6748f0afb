"""Every fault is told in one sentence, and nothing is lost; `python tests/recipes/faults.py` prints what is said."""

import subprocess
import sys
from pathlib import Path


def test_faults_are_one_sentence_and_lose_nothing():
    script = Path(__file__).with_name("faults.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0 and "LOST" not in done.stdout, done.stdout + done.stderr
