"""The names that `from etude import ...` gives, as a user's type checker sees them."""

import os
import subprocess
import sys

import etude
from experiments.pages import ROOT

SCRIPT = """
from collections.abc import Sequence
from typing import Any

from etude import Callback, Reward, Task, UserError, attach, evaluate, generate, in_process, practice, reliable


def brief(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1.0 / (1 + len(text.split())) for text in completions]


@in_process
def judged(text: str, task: Task) -> Reward:
    return Reward(float(len(text)), right_at=3.0)


class Quiet(Callback):
    name = "quiet"


def main() -> None:
    try:
        result = practice(model="smollm2-135m", tasks=["a", "b"], reward=[brief, judged], callbacks=[Quiet()], steps=2)
    except UserError as error:
        print(error)
        return
    gain: float = result.gain
    for row in result.rows:
        print(row.accuracy, gain)
    text: str = generate(result.model, "What is a lamp?", max_new_tokens=8)[0].text
    accuracy: float = evaluate(result.model, tasks=[{"question": "q", "answer": "a"}]).accuracy
    print(text, accuracy, attach, reliable)
"""


def test_a_script_of_a_user_passes_strict_type_checks(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(SCRIPT.replace("gain: float", "gain: str").replace("right_at=3.0", 'right_at="3"'))
    checked = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-site-packages",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    how = {"capture_output": True, "text": True, "cwd": tmp_path, "env": os.environ | {"MYPYPATH": str(ROOT)}}
    assert subprocess.run([*checked, "script.py"], **how).stdout.startswith("Success: no issues found")
    wrong = subprocess.run([*checked, "wrong.py"], **how).stdout
    assert "Incompatible types in assignment" in wrong and 'has incompatible type "str"' in wrong  # types are known at all


def test_every_name_loads_and_is_listed():
    assert set(etude.__all__) <= set(dir(etude))
    assert all(getattr(etude, name).__doc__ for name in etude.__all__)
