"""The `code` verifier: runs the Python code of an answer against the tests of its task.

The code is that of the last block fenced with ```python, else of the last fenced block, else the whole text. The tests stand in the task's
metadata, under `tests` or MBPP's `test_list` (Austin et al. 2021, arXiv 2108.07732):

    ["assert add(1, 2) == 3", ...]              statements that follow the code
    [{"input": "1 2", "output": "3"}, ...]      what a program that reads its standard input prints, as in APPS (Hendrycks et al. 2021,
                                                arXiv 2105.09938); spaces at the ends of lines do not count

`setup`, `test_setup_code` or `test_imports` is code that runs between the answer's code and a statement. The score is the share of tests
that hold, each in a process of its own; tests after the first 100 are left out. Only Python's own library can be imported.

The code is hostile until shown otherwise, and runs neither in this process nor in a fork of it: `etude.tasks.code_runner` describes the
processes, `etude.tasks.code_confinement` what they may do. An assert is split, so that the program does not see what is expected
(`etude.tasks.code_asserts`). A statement that can't be split (`def check(f): ...`, a comprehension over expected values) runs in the
program's process: exiting early does not pass it, but a program that looks for it can replace what it uses, or find and send the token
that says that it held.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.tasks.code_confinement import can_confine
from etude.tasks.feedback import shortened
from etude.tasks.reward import Reward
from etude.tasks.task import Task

MOST_TESTS = 100
LONGEST_CODE = 100_000
"""Longer code counts as not found, in characters."""
_RUNNER_SECONDS = 4.7
"""Below the 5 s that a verifier has for an answer, and above what the runner gives the tests."""
_ROOT = str(Path(__file__).parents[2])
_RUN = "import sys; sys.path.append(sys.argv[1]); from etude.tasks.code_runner import main; sys.path.pop(); main()"
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
_LONGEST_TEST = 200

Test = str | dict[str, str]


def code(text: str, task: Task) -> Reward:
    """Score the share of the task's tests that hold for the code of the answer.

    >>> add = Task("Write add(a, b).", None, "code", metadata={"tests": ["assert add(1, 2) == 3", "assert add(2, 2) == 5"]})
    >>> code("def add(a, b): return a + b", add).score
    0.5
    """
    tests, problem = read_tests(task.metadata)
    if problem:
        return Reward(None, message=problem)
    if not can_confine():
        return Reward(None, message="a model's code runs only where it can be confined: Linux on x86-64 or arm64")
    program = find_code(text)
    if not program.strip() or len(program) > LONGEST_CODE:
        return Reward(0.0, {"parsable": 0.0}, message="no code in the answer", words="I found no code in your answer.")
    found = run_tests(program, tests, read_setup(task.metadata))
    return found if isinstance(found, Reward) else _reward(tests, found["syntax"], found["failures"])


def find_code(text: str) -> str:
    """Return the code of an answer: the last block fenced with ```python, else the last fenced block, else the text. An unclosed block ends
    with the text.

    >>> find_code("So:\\n```python\\nx = 1\\n```\\nIt prints\\n```\\n1\\n```\\n")
    'x = 1\\n'
    """
    blocks = _FENCE.findall(text)
    named = [block for name, block in blocks if name.lower() in ("python", "py", "python3")]
    return (named or [block for _, block in blocks] or [text])[-1]


def read_tests(metadata: Mapping[str, Any]) -> tuple[list[Test], str]:
    """Read the tests of a task, and describe what is wrong with them; "" if nothing is."""
    tests = metadata.get("tests", metadata.get("test_list"))
    if not tests:
        return [], "the task has no tests: its column tests must list asserts, or objects with input and output"
    if not isinstance(tests, list) or not all(map(_is_test, tests)):
        return [], f"tests must be a list of texts, or of objects with the texts input and output, got {shortened(str(tests))}"
    return tests[:MOST_TESTS], ""


def _is_test(test: Any) -> bool:
    pair = [test.get("input"), test.get("output")] if isinstance(test, dict) else [test]
    return all(isinstance(text, str) for text in pair)


def read_setup(metadata: Mapping[str, Any]) -> str:
    """Return the code that runs before each test."""
    found = [metadata.get(name) for name in ("setup", "test_setup_code", "test_imports")]
    return "\n".join("\n".join(map(str, each)) if isinstance(each, list) else str(each) for each in found if each)


def run_tests(program: str, tests: list[Test], setup: str) -> dict[str, Any] | Reward:
    """Run a program on tests in processes of their own; return the runner's reply, or the reward if it has none."""
    messages = [
        {"program": program, "kinds": ["input" if isinstance(test, dict) else "statement" for test in tests]},
        {"tests": tests, "setup": setup},
    ]
    written = [json.dumps(message).encode() for message in messages]
    runner = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _RUN, _ROOT, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    )
    try:
        said, _ = runner.communicate(b"".join(len(each).to_bytes(8, "big") + each for each in written), _RUNNER_SECONDS)
    except subprocess.TimeoutExpired:
        return Reward(0.0, {"parsable": 1.0}, message="the tests took too long", words="Your code takes too long.")
    finally:
        if runner.poll() is None:
            os.killpg(runner.pid, signal.SIGKILL)  # the programs die with it, and are in its group
            runner.communicate()
    try:
        return json.loads(said)
    except ValueError:
        return Reward(None, message=f"the tests could not be run: their process ended with {runner.returncode}")


def _reward(tests: list[Test], syntax: str, failures: list[str]) -> Reward:
    """Build the reward from what failed in each test."""
    if syntax:
        return Reward(0.0, {"parsable": 0.0}, message=f"the code does not compile: {syntax}", words=f"Your code has an error: {syntax}")
    share = sum(not failure for failure in failures) / len(tests)
    if share == 1:
        return Reward(1.0, {"parsable": 1.0})
    test, failure = next((test, failure) for test, failure in zip(tests, failures, strict=True) if failure)
    if isinstance(test, str):
        message = said = f"{shortened(test.strip(), _LONGEST_TEST)} fails: {failure}"
    else:
        given = shortened(repr(test["input"]), _LONGEST_TEST)
        message = f"for the input {given} {failure}, expected {shortened(repr(test['output']), _LONGEST_TEST)}"
        said = f"for the input {given} {failure}"
    return Reward(share, {"parsable": 1.0}, message=message, words=f"Your code does not pass all tests: {said}.")
