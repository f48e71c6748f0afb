"""What a hostile verifier tries, and what becomes of it."""

import os
import platform
import sys
from pathlib import Path

import pytest

from etude.feedback.outcome import OutcomeFeedback
from etude.tasks.task import Task

HOSTILE = """
import os, resource, signal, socket, subprocess, tempfile, time
from pathlib import Path

def tried(action):
    try:
        action()
    except OSError as error:
        return error.errno in (1, 13)
    return False

def sleeper(**options):
    return subprocess.Popen(["sleep", "600"], **options).pid

def judge(text, task):
    mine = Path(task.metadata["folder"])
    if text == "write": return tried(lambda: (mine / "new").write_text("x"))
    if text == "append": return tried(lambda: (mine / "kept").open("a"))
    if text == "remove": return tried(lambda: (mine / "kept").unlink())
    if text == "rename": return tried(lambda: (mine / "kept").rename(mine / "gone"))
    if text == "empty": return tried(lambda: os.truncate(mine / "kept", 0))
    if text == "folder": return tried(lambda: (mine / "made").mkdir())
    if text == "link": return tried(lambda: (mine / "link").symlink_to("/etc/passwd"))
    if text == "shell": return subprocess.run(["sh", "-c", f"echo x > {mine / 'new'}"], stderr=subprocess.DEVNULL).returncode != 0
    if text == "internet": return tried(lambda: socket.create_connection(("127.0.0.1", 80)))
    if text == "socket": return tried(lambda: socket.socket(socket.AF_UNIX))
    if text == "parent": return tried(lambda: os.kill(task.metadata["run"], signal.SIGTERM))
    if text == "guard": return tried(lambda: os.kill(os.getppid(), signal.SIGTERM))
    if text == "limits": return tried(lambda: resource.prlimit(task.metadata["run"], resource.RLIMIT_CPU, (1, 1)))
    if text == "priority": return tried(lambda: os.setpriority(os.PRIO_PROCESS, task.metadata["run"], 19))
    if text == "processors": return tried(lambda: os.sched_setaffinity(task.metadata["run"], {0}))
    if text == "own": return os.sched_getaffinity(0) and os.sched_setaffinity(0, os.sched_getaffinity(0)) is None and os.nice(0) >= 0
    if text == "session": return subprocess.run(["true"], start_new_session=True).returncode == 0
    if text == "temporary":
        with tempfile.NamedTemporaryFile("w+") as file:
            file.write("x")
            return Path(file.name).is_file() and tempfile.gettempdir() == os.environ["TMPDIR"]
    if text == "read": return (mine / "kept").read_text() == "mine"
    if text == "run": return subprocess.run(["true"]).returncode == 0
    if text == "leave a child":
        from etude.feedback.verdict import Verdict
        return Verdict(1.0, message=f"{sleeper()} {sleeper(start_new_session=True)}")
    if text == "hang":
        time.sleep(600)
"""
CLOSED = {
    "files": ["write", "append", "remove", "rename", "empty", "folder", "link", "shell"],
    "network": ["internet", "socket"],
    "processes": ["parent", "guard", "limits", "priority", "processors"],
}


@pytest.fixture
def task(tmp_path) -> Task:
    (tmp_path / "hostile.py").write_text(HOSTILE)
    (tmp_path / "kept").write_text("mine")
    return Task("question", "", f"{tmp_path / 'hostile.py'}:judge", metadata={"folder": str(tmp_path), "run": os.getpid()})


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux")
def test_this_kernel_closes_what_it_can():
    names = Path("/sys/kernel/security/lsm")
    has_landlock = names.exists() and "landlock" in names.read_text()
    with OutcomeFeedback() as feedback:
        assert set(feedback.closed) >= ({"files", "network"} if has_landlock else {"network"})


@pytest.mark.parametrize("kind", CLOSED)
def test_what_is_closed_is_refused_and_nothing_is_changed(kind, task, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with OutcomeFeedback() as feedback:
        if kind not in feedback.closed:
            pytest.skip(f"this kernel does not close {kind}")
        verdicts = feedback.judge([(text, task) for text in CLOSED[kind]])
    assert {text: verdict.score for text, verdict in zip(CLOSED[kind], verdicts, strict=True)} == dict.fromkeys(CLOSED[kind], 1.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_what_a_verifier_needs_stays_open_and_temporary_files_go(task):
    with OutcomeFeedback() as feedback:
        verdicts = feedback.judge([(text, task) for text in ("temporary", "read", "run", "own", "session")])
        assert feedback._child is not None
        scratch = Path(feedback._child._scratch.name)
        assert scratch.is_dir()
    assert [verdict.score for verdict in verdicts] == [1.0] * 5, [verdict.message for verdict in verdicts]
    assert not scratch.exists()


def test_a_verifier_that_needs_files_may_be_left_alone(task, tmp_path):
    with OutcomeFeedback(is_isolated=False) as feedback:
        assert feedback.closed == []
        assert feedback.judge([("write", task)])[0].score == 0.0
    assert (tmp_path / "new").read_text() == "x"


def test_what_a_verifier_started_dies_with_the_feedback(task):
    with OutcomeFeedback() as feedback:
        started = feedback.judge([("leave a child", task)])[0].message
    assert not any(Path(f"/proc/{pid}").exists() for pid in started.split())  # killed and buried, the one in a session of its own too


def test_what_a_verifier_started_dies_with_a_run_that_is_killed(task, killed_run, wait_until_gone):
    assert all(wait_until_gone(pid) for pid in killed_run(task, "leave a child").split())
