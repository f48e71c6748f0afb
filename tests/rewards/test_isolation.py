"""What a hostile verifier tries, and what becomes of it."""

import os
import platform
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import pytest

from etude.errors import UserError
from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.task import Task

HOSTILE = """
import ctypes, os, platform, resource, shutil, signal, socket, subprocess, tempfile, threading, time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"unshare": 272, "clone": 56, "clone3": 435, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "keyctl": 250,
               "userfaultfd": 323, "fchmodat2": 452, "file_setattr": 469, "utime": 132, "open_by_handle_at": 304},
    "aarch64": {"unshare": 97, "clone": 220, "clone3": 435, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "keyctl": 219,
                "userfaultfd": 282, "fchmodat2": 452, "file_setattr": 469, "utime": None, "open_by_handle_at": 265},
}

def refused(name, *arguments):
    number = NUMBERS[platform.machine()][name]
    if number is None:
        return True
    result = libc.syscall(number, *map(ctypes.c_long, arguments))
    if result == 0 and name == "clone":
        os._exit(0)
    return result < 0 and ctypes.get_errno() == (38 if name == "clone3" else 1)

def flags(path):
    number = os.open(path, os.O_RDONLY)
    return libc.ioctl(number, ctypes.c_ulong(0x40086602), ctypes.byref(ctypes.c_int(0x40))) < 0 and ctypes.get_errno() == 1

beat = open(os.path.join(tempfile.gettempdir(), "beat"), "ab", buffering=0)

def comet(seconds):
    if os.fork():
        return
    os.setsid()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
        beat.write(b"x")
    os._exit(0)

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
    if text == "mode": return tried(lambda: os.chmod(mine / "kept", 0))
    if text == "setuid": return tried(lambda: os.chmod(mine / "kept", 0o4777))
    if text == "mode of open": return tried(lambda: os.fchmod(os.open(mine / "kept", os.O_RDONLY), 0o777))
    if text == "mode, new call": return refused("fchmodat2", -100, ctypes.cast(str(mine / "kept").encode(), ctypes.c_void_p).value, 0, 0)
    if text == "mode by a program": return subprocess.run(["chmod", "777", mine / "kept"], stderr=subprocess.DEVNULL).returncode != 0
    if text == "owner": return tried(lambda: os.chown(mine / "kept", os.getuid(), os.getgid()))
    if text == "owner of open": return tried(lambda: os.fchown(os.open(mine / "kept", os.O_RDONLY), os.getuid(), os.getgid()))
    if text == "owner of link": return tried(lambda: os.lchown(mine / "kept", os.getuid(), os.getgid()))
    if text == "times": return tried(lambda: os.utime(mine / "kept", (0, 0)))
    if text == "times, old call": return refused("utime", ctypes.cast(str(mine / "kept").encode(), ctypes.c_void_p).value, 0)
    if text == "attribute": return tried(lambda: os.setxattr(mine / "kept", "user.a", b"x"))
    if text == "no attribute": return tried(lambda: os.removexattr(mine / "kept", "user.a"))
    if text == "flags": return flags(mine / "kept")
    if text == "flags, new call": return refused("file_setattr", -100, 0, 0, 0, 0)
    if text == "mode in scratch":
        made = Path(tempfile.mkdtemp()) / "made"
        made.write_text("x")
        return tried(lambda: made.chmod(0o4755))
    if text == "namespace": return refused("unshare", 0x10000000)
    if text == "namespace by clone": return refused("clone", 0x10000000 | 17, 0, 0, 0, 0)
    if text == "namespace by clone3": return refused("clone3", 0, 0)
    if text == "shared memory": return refused("shmget", 0, 4096, 0o1600)
    if text == "semaphores": return refused("semget", 0, 1, 0o1600)
    if text == "queue": return refused("msgget", 0, 0o1600)
    if text == "POSIX queue": return refused("mq_open", ctypes.cast(b"a", ctypes.c_void_p).value, 0o102, 0o600, 0)
    if text == "keyring": return refused("keyctl", 0, -3, 0)
    if text == "page faults": return refused("userfaultfd", 1)
    if text == "handle": return refused("open_by_handle_at", -100, 0, 0)
    if text == "worker": return tried(lambda: os.kill(os.getppid(), signal.SIGSTOP))
    if text == "all": # what is left of this item goes with it
        os.kill(-1, signal.SIGTERM)
        return 1.0
    if text == "comets":
        from etude.tasks.reward import Reward
        for _ in range(5): comet(8)
        return Reward(1.0, message=beat.name)
    if text == "comets and hang":
        for _ in range(5): comet(8)
        time.sleep(600)
    if text == "move":
        made = Path(tempfile.mkdtemp())
        (made / "inner").mkdir()
        (made / "inner" / "file").write_text("x")
        (made / "inner" / "file").rename(made / "file")
        (made / "inner").rename(Path(tempfile.mkdtemp()) / "moved")
        return (made / "file").read_text() == "x"
    if text == "thread":
        found = []
        thread = threading.Thread(target=lambda: found.append(1.0))
        thread.start(); thread.join()
        return found[0]
    if text == "a program of its own":
        made = os.path.join(tempfile.mkdtemp(), "program")
        with os.fdopen(os.open(made, os.O_CREAT | os.O_WRONLY, 0o755), "wb") as file:
            file.write(Path(shutil.which("true")).read_bytes())
        return subprocess.run([made]).returncode == 0
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
        from etude.tasks.reward import Reward
        return Reward(1.0, message=f"{sleeper()} {sleeper(start_new_session=True)}")
    if text == "hang":
        time.sleep(600)
"""
CLOSED = {
    "files": [
        *("write", "append", "remove", "rename", "empty", "folder", "link", "shell"),
        *("mode", "setuid", "mode of open", "mode, new call", "mode by a program", "mode in scratch"),
        *("owner", "owner of open", "owner of link", "times", "times, old call"),
        *("attribute", "no attribute", "flags", "flags, new call"),
    ],
    "network": ["internet", "socket"],
    "processes": [
        *("parent", "guard", "worker", "limits", "priority", "processors"),
        *("namespace", "namespace by clone", "namespace by clone3", "shared memory", "semaphores", "queue", "POSIX queue"),
        *("keyring", "page faults", "handle"),
    ],
}


@pytest.fixture
def task(tmp_path) -> Task:
    (tmp_path / "hostile.py").write_text(HOSTILE)
    (tmp_path / "kept").write_text("mine")
    return Task("question", "", f"{tmp_path / 'hostile.py'}:judge", metadata={"folder": str(tmp_path), "run": os.getpid()})


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux")
def test_this_kernel_isolates_as_far_as_it_can():
    names = Path("/sys/kernel/security/lsm")
    has_landlock = names.exists() and "landlock" in names.read_text()
    with VerifierReward() as verifiers:
        assert set(verifiers.closed) >= ({"files", "network"} if has_landlock else {"network"})


@pytest.mark.parametrize("kind", CLOSED)
def test_blocked_operations_fail_and_change_nothing(kind, task, tmp_path):
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    mode = (tmp_path / "kept").stat().st_mode
    with VerifierReward() as verifiers:
        if kind not in verifiers.closed:
            pytest.skip(f"this kernel does not close {kind}")
        rewards = verifiers.judge([(text, task) for text in CLOSED[kind]])
    assert {text: reward.score for text, reward in zip(CLOSED[kind], rewards, strict=True)} == dict.fromkeys(CLOSED[kind], 1.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert (tmp_path / "kept").stat().st_mode == mode


def test_verifiers_can_read_and_their_temporary_files_are_removed(task):
    with VerifierReward() as verifiers:
        open_to_it = ("temporary", "read", "run", "own", "session", "move", "thread", "a program of its own", "all")
        rewards = verifiers.judge([(text, task) for text in open_to_it])
        (child,) = verifiers._children.values()
        scratch = Path(child._scratch)
        assert scratch.is_dir()
    assert [reward.score for reward in rewards] == [1.0] * len(open_to_it), [reward.message for reward in rewards]
    assert not scratch.exists()


def test_isolation_can_be_turned_off(task, tmp_path):
    with VerifierReward(isolate=False) as verifiers:
        assert verifiers.closed == []
        assert verifiers.judge([("write", task)])[0].score == 0.0
    assert (tmp_path / "new").read_text() == "x"


def test_child_processes_of_a_verifier_die_when_the_reward_is_closed(task):
    with VerifierReward() as verifiers:
        started = verifiers.judge([("leave a child", task)])[0].message
    assert not any(Path(f"/proc/{pid}").exists() for pid in started.split())  # killed and buried, the one in a session of its own too


def test_child_processes_of_a_verifier_die_with_a_killed_run(task, killed_run, wait_until_gone):
    assert all(wait_until_gone(pid) for pid in killed_run(task, "leave a child").split())


# ---------------------------------------------------------------------- what forks and exits by turns


def turns(beat: BinaryIO) -> int:
    """How many turns there are in a fifth of a second."""
    before = os.fstat(beat.fileno()).st_size
    time.sleep(0.2)
    return os.fstat(beat.fileno()).st_size - before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("isolate", [True, False])  # where signals are confined, and where the guard has to catch them one by one
def test_a_fork_and_exit_chain_dies_when_the_reward_is_closed(task, isolate):
    with VerifierReward(isolate=isolate) as verifiers, ExitStack() as stack:
        beat = stack.enter_context(open(verifiers.judge([("comets", task)])[0].message, "rb"))
        assert turns(beat) > 10
        start = time.monotonic()
        verifiers.close()
        assert time.monotonic() - start < 2 and turns(beat) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
@pytest.mark.parametrize("isolate", [True, False])
def test_a_fork_and_exit_chain_dies_with_its_time_out(task, isolate):
    with VerifierReward(timeout_seconds=0.5, isolate=isolate) as verifiers, ExitStack() as stack:
        beat = stack.enter_context(open(verifiers.judge([("comets", task)])[0].message, "rb"))
        assert turns(beat) > 10
        start = time.monotonic()
        rewards = verifiers.judge([("comets and hang", task), ("read", task)])
        assert [reward.score for reward in rewards] == [None, 1.0] and time.monotonic() - start < 3
        time.sleep(0.0 if "processes" in verifiers.closed else 0.3)  # one by one takes a moment
        assert turns(beat) == 0


def test_a_fork_and_exit_chain_dies_with_a_killed_run(task, killed_run):
    with ExitStack() as stack:
        beats = []
        killed_run(task, "comets", lambda path: beats.append(stack.enter_context(open(path, "rb"))) or turns(beats[0]))
        time.sleep(0.5)
        assert turns(beats[0]) == 0


# ---------------------------------------------------------------------- a kernel that cannot


WITHOUT_LANDLOCK = """
import ctypes, struct, sys
from etude.errors import UserError
from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.task import Task

steps = [(0x20, 0, 0, 0)] + [step for call in (444, 445, 446) for step in ((0x15, 0, 1, call), (0x06, 0, 0, 0x50026))]
steps += [(0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
holder = struct.pack("@HP", len(steps), ctypes.addressof(program))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, holder, 0, 0) == 0  # as a kernel that never heard of Landlock

own, built_in = Task("question", "", sys.argv[1]), Task("question", "5", "numeric")
with VerifierReward() as verifiers:
    print(verifiers.closed)
    print(repr(verifiers.prepare([built_in])))
    print(verifiers.prepare([built_in, own]))
try:
    with VerifierReward(isolate="required") as verifiers:
        verifiers.prepare([built_in])
except UserError as error:
    print(error)
with VerifierReward(isolate=False) as verifiers:
    print(repr(verifiers.prepare([own])), [reward.score for reward in verifiers.judge([("5", built_in)])])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux")
def test_missing_isolation_is_reported_or_refused_if_required(tmp_path):
    (tmp_path / "mine.py").write_text("def judge(text, task): return 1.0")
    command = [sys.executable, "-c", WITHOUT_LANDLOCK, f"{tmp_path / 'mine.py'}:judge"]
    closed, nothing, warning, refusal, left_open = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert (closed, nothing, left_open) == ("['network']", "''", "'' [1.0]")
    assert warning.startswith("verifiers are not kept from files, processes (files: Landlock 3 of Linux 6.2; processes: Landlock 6")
    assert "Landlock off" in warning and "isolate_verifiers required refuses" in warning
    assert refusal.startswith("isolate_verifiers is required, but verifiers can't be kept from files, processes (")
    assert refusal.endswith("set it to true, which closes network here, or run on a kernel that can")


def test_full_isolation_gives_no_warning(task):
    with VerifierReward(isolate="required") as verifiers:
        try:
            assert verifiers.prepare([task]) == ""
        except UserError:
            pytest.skip("this kernel does not close all")
        assert verifiers.judge([("read", task)])[0].score == 1.0
