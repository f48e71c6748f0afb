"""Processes that should be gone: shared by the tests of verifiers that misbehave."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etude.tasks.task import Task


def is_running(pid: int | str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.fixture(name="is_running")
def is_running_fixture() -> Callable[[int | str], bool]:
    return is_running


@pytest.fixture
def wait_until_gone() -> Callable[[int | str], bool]:
    """Whether a process ends within five seconds."""

    def wait(pid: int | str) -> bool:
        for _ in range(100):
            if not is_running(pid):
                return True
            time.sleep(0.05)
        return False

    return wait


@pytest.fixture
def killed_run(tmp_path: Path) -> Callable[..., str]:
    """`killed_run(task, text)`: the message of the reward on `text`, from a run that SIGKILL then hit while its verifier hung.

    `killed_run(task, text, look)`: `look` gets that message before.
    """

    def run_and_kill(task: Task, text: str, look: Callable[[str], object] = str) -> str:
        file = tmp_path / "message"
        script = (
            "from etude.rewards.verifier_reward import VerifierReward\n"
            "from etude.tasks.task import Task\n"
            f"task = Task('question', {task.answer!r}, {task.verifier!r}, metadata={dict(task.metadata)!r})\n"
            "verifiers = VerifierReward(600)\n"
            f"open({str(file)!r}, 'w').write(verifiers.judge([({text!r}, task)])[0].message)\n"
            "verifiers.judge([('hang', task)])\n"
        )
        with subprocess.Popen([sys.executable, "-c", script]) as run:
            while not (file.exists() and file.read_text()):
                assert run.poll() is None
                time.sleep(0.05)
            time.sleep(0.3)
            look(file.read_text())
            run.kill()
        return file.read_text()

    return run_and_kill
