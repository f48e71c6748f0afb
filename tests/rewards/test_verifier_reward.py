import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.task import Task

VERIFIER = """
import os, signal, subprocess, sys, time
from etude.tasks.reward import Reward

def judge(text, task):
    if text == "hang":
        while True: pass
    if text == "hang with a child":
        child = subprocess.Popen(["sleep", "600"])
        open(task.metadata["file"], "w").write(str(child.pid))
        time.sleep(600)
    if text == "raise": raise KeyError("oh")
    if text == "exit": sys.exit(3)
    if text == "leave": os._exit(7)
    if text == "segfault": os.kill(os.getpid(), signal.SIGSEGV)
    if text == "allocate": bytearray(8 * 2**30)
    if text == "string": return "right"
    if text == "parts": return Reward(1.0, {"object": object()})
    if text == "print":
        print("noise" * 100_000); sys.stderr.write("noise" * 100_000); os.write(1, b"{}\\n"); os.system("echo noise")
    if text == "read": assert sys.stdin.read() == ""
    if text == "none": return None
    if text == "pid": return Reward(1.0, {}, (0.5, 1.0), str(os.getpid()))
    return text == task.answer
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "mine.py").write_text(VERIFIER)
    return Task("question", "right", f"{tmp_path / 'mine.py'}:judge", metadata={"file": str(tmp_path / "child")})


def test_a_thousand_numbers_are_judged_in_order_and_quickly():
    pairs = [(f"It is {i}", Task("question", str(i - i % 2), "numeric")) for i in range(1000)]
    with VerifierReward() as verifiers:
        verifiers.judge(pairs[:1])
        start = time.perf_counter()
        rewards = verifiers.judge(pairs)
        assert time.perf_counter() - start < 3  # 0.15 s on an idle machine
    assert [reward.score for reward in rewards] == [1.0, 0.0] * 500
    assert verifiers.counts == {"judged": 1001, "timed_out": 0, "crashed": 0}


def test_trouble_costs_its_own_item_and_nothing_else(task):
    texts = ["right", "hang", "wrong", "raise", "exit", "leave", "right", "segfault", "allocate", "string", "parts", "none", "right"]
    with VerifierReward(timeout_seconds=1.0, memory_bytes=2 * 2**30) as verifiers:
        rewards = verifiers.judge([(text, task) for text in texts])
    scores = [reward.score for reward in rewards]
    assert scores == [1.0, None, 0.0, None, None, None, 1.0, None, None, None, None, None, 1.0]
    messages = {text: reward.message for text, reward in zip(texts, rewards, strict=True)}
    assert messages["hang"] == "timed out after 1.0 s"
    assert messages["raise"] == "the verifier raised KeyError: 'oh'"
    assert messages["exit"] == "the verifier raised SystemExit: 3"
    assert messages["leave"] == "the verifier's process ended: exit code 7"
    assert messages["segfault"] == "the verifier's process ended: signal SIGSEGV"
    assert messages["allocate"].startswith("the verifier raised MemoryError")
    assert messages["string"].startswith("the verifier raised TypeError: a verifier returns a Reward")
    assert messages["parts"].startswith("the verifier raised TypeError")
    assert verifiers.counts == {"judged": len(texts), "timed_out": 1, "crashed": 7}


def test_what_a_verifier_prints_or_reads_does_not_reach_the_protocol(task, capfd):
    with VerifierReward() as verifiers:
        rewards = verifiers.judge([(text, task) for text in ("print", "read", "print", "right")])
    assert [reward.score for reward in rewards] == [0.0, 0.0, 0.0, 1.0]
    assert capfd.readouterr() == ("", "")


def test_a_reward_comes_back_whole_and_the_child_goes_with_its_context(task, is_running, wait_until_gone):
    with VerifierReward() as verifiers:
        (reward,) = verifiers.judge([("pid", task)])
        assert reward.step_values == (0.5, 1.0)
        assert int(reward.message) != os.getpid()
        assert is_running(reward.message)
        assert verifiers.judge([("pid", task)])[0].message == reward.message
    assert wait_until_gone(reward.message)


def test_a_time_out_kills_what_the_verifier_started(task, wait_until_gone):
    with VerifierReward(timeout_seconds=1.0, isolate=False) as verifiers:
        assert verifiers.judge([("hang with a child", task)])[0].score is None
        assert wait_until_gone(Path(task.metadata["file"]).read_text())


def test_a_child_that_was_killed_between_batches_is_replaced(task, wait_until_gone):
    with VerifierReward() as verifiers:
        pid = int(verifiers.judge([("pid", task)])[0].message)
        os.kill(pid, 9)
        assert wait_until_gone(pid)
        assert verifiers.judge([("right", task)])[0].score == 1.0
        assert verifiers.counts["crashed"] == 0


def test_the_child_dies_with_its_parent(task, killed_run, wait_until_gone):
    assert wait_until_gone(killed_run(task, "pid"))


def test_large_texts_and_odd_characters_pass_through(task):
    long = Task("question", "x" * 2_000_000, task.verifier)
    odd = Task("question", "a\nb\x00\ud800 é", task.verifier)
    with VerifierReward() as verifiers:
        rewards = verifiers.judge([(long.answer, long), (odd.answer, odd)] * 3)
    assert [reward.score for reward in rewards] == [1.0] * 6


def test_foreign_verifiers_work_under_the_memory_limit_and_loading_is_not_charged():
    entry = {"question": "question", "answer": "12", "metadata": {}}
    family = Task("question", "12", "reasoning_gym", metadata={"family": "gcd", "entry": entry})
    pairs = [
        ("$x + 1$", Task("question", "1+x", "math")),
        ("12", family),
        ("9^{9^{9^{9^9}}}", Task("question", "1", "math")),
        ("120", family),
    ]
    with VerifierReward(timeout_seconds=1.0) as verifiers:
        rewards = verifiers.judge(pairs)
    assert [reward.score for reward in rewards] == [1.0, 1.0, None, 0.0]


def test_chat_prompts_arrive_as_tuples_and_an_empty_batch_is_fine(tmp_path):
    (tmp_path / "mine.py").write_text("def judge(text, task): return isinstance(task.prompt, tuple) and task.question == text")
    chat = Task(({"role": "user", "content": "hello"},), None, f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward() as verifiers:
        assert verifiers.judge([]) == []
        assert verifiers.judge([("hello", chat)])[0].score == 1.0


def test_a_time_out_of_0_is_refused():
    with pytest.raises(UserError, match="timeout_seconds must be above 0, got 0"):
        VerifierReward(0)


def test_the_worker_imports_nothing_heavy():
    heavy = ("torch", "transformers", "datasets", "sympy", "reasoning_gym")
    script = f"import sys, etude.rewards.worker; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------------- beside something else


def test_background_batches_are_judged_in_order(task):
    texts = [["right", "wrong"], ["hang", "right"], ["leave"], ["right"]]
    with VerifierReward(timeout_seconds=1.0) as verifiers:
        begun = [verifiers.begin([(text, task) for text in batch]) for batch in texts]
        scores = [[reward.score for reward in future.result()] for future in begun]
        assert verifiers.judge([("right", task)])[0].score == 1.0  # from here again, with a child of the thread's
    assert scores == [[1.0, 0.0], [None, 1.0], [None], [1.0]]
    assert verifiers.counts == {"judged": 7, "timed_out": 1, "crashed": 1}


def test_a_failed_batch_raises_in_its_future_only(task):
    with VerifierReward() as verifiers:
        wrong = verifiers.begin([("right", Task("question", "right", "exact", metadata={"object": object()}))])
        right = verifiers.begin([("right", task)])
        with pytest.raises(UserError, match="must hold JSON values only"):
            wrong.result()
        assert right.result()[0].score == 1.0


@pytest.mark.parametrize("wait_seconds", [0.0, 2.0])  # while the child starts, and while the verifier hangs
def test_the_end_does_not_wait_for_a_verifier_that_hangs(task, wait_seconds):
    start = time.monotonic()
    with VerifierReward(timeout_seconds=600) as verifiers:
        begun = [verifiers.begin([("hang", task)] * 3) for _ in range(3)]
        time.sleep(wait_seconds)
    assert time.monotonic() - start < wait_seconds + 30
    assert all(future.done() for future in begun)
    assert not verifiers._children
    with verifiers:  # and it can be used again
        assert verifiers.begin([("right", task)]).result()[0].score == 1.0


# ---------------------------------------------------------------------- what trouble costs


SLOW = """
import os, time
time.sleep(1.0)
{more}
def judge(text, task):
    if text == "hang": time.sleep(600)
    if text == "leave": os._exit(3)
    return 1.0
"""


def test_a_hung_or_dead_verifier_costs_its_time_out_and_not_the_imports_again(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW.format(more=""))
    task = Task("question", "", f"{tmp_path / 'slow.py'}:judge")
    with VerifierReward(timeout_seconds=0.1) as verifiers:
        start = time.monotonic()
        rewards = verifiers.judge([(text, task) for text in (["hang"] * 5 + ["right", "leave", "right"]) * 2])
        took = time.monotonic() - start
    assert [reward.score for reward in rewards] == ([None] * 5 + [1.0, None, 1.0]) * 2
    assert took < 1.0 + 10 * 0.1 + 3.0  # imports of twelve would be 12 s more
    assert verifiers.counts == {"judged": 16, "timed_out": 10, "crashed": 2}


@pytest.mark.parametrize(
    "more",
    [
        "import threading; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        "import subprocess; child = subprocess.Popen(['sleep', '600'])",
    ],
)
def test_a_verifier_that_no_fork_can_copy_works_all_the_same(tmp_path, more):
    (tmp_path / "slow.py").write_text(SLOW.format(more=more).replace("time.sleep(1.0)", ""))
    task = Task("question", "", f"{tmp_path / 'slow.py'}:judge")
    with VerifierReward(timeout_seconds=0.3) as verifiers:
        rewards = verifiers.judge([(text, task) for text in ("right", "hang", "right", "leave", "right")])
        assert [reward.score for reward in rewards] == [1.0, None, 1.0, None, 1.0]
        assert rewards[3].message == "the verifier's process ended: exit code 3"
        assert verifiers.judge([("right", task)])[0].score == 1.0


def test_a_verifier_that_forks_and_comes_back_twice_answers_once(tmp_path):
    (tmp_path / "mine.py").write_text("import os\ndef judge(text, task):\n    if text == 'fork': os.fork()\n    return 1.0")
    task = Task("question", "", f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward() as verifiers:
        assert [reward.score for reward in verifiers.judge([(text, task) for text in ("fork", "a", "fork", "b")])] == [1.0] * 4
    assert verifiers.counts["crashed"] == 0


# ---------------------------------------------------------------------- a verifier's file


def test_the_main_process_runs_no_line_of_a_verifier_s_file(tmp_path):
    (tmp_path / "mine.py").write_text("import os\nowner = str(os.getpid())\nfrom etude.tasks.reward import Reward\n")
    with (tmp_path / "mine.py").open("a") as file:
        file.write("def judge(text, task): return Reward(1.0, message=owner)")
    task = Task("question", "", f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward() as verifiers:
        verifiers.prepare([task])
        assert int(verifiers.judge([("text", task)])[0].message) != os.getpid()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0\ndef judge(text, task): ...", r"mine\.py does not run: ZeroDivisionError: division by zero$"),
        ("judge = 3", r"mine\.py:judge must be a function, got int$"),
        ("import sys\nsys.exit(4)\ndef judge(text, task): ...", r"verifier '.*mine\.py:judge' does not load: SystemExit: 4$"),
        ("import os\nos._exit(4)\ndef judge(text, task): ...", r"does not load: its process ended: exit code 4$"),
        ("import time\ntime.sleep(600)\ndef judge(text, task): ...", r"does not load: it took more than 2 s$"),
        ("open('made', 'w')\ndef judge(text, task): ...", r"mine\.py does not run: PermissionError.*verifiers are kept from files"),
    ],
)
def test_a_verifier_that_does_not_load_is_reported_before_judging(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("etude.rewards.process.START_SECONDS", 2.0)
    (tmp_path / "mine.py").write_text(text)
    with VerifierReward() as verifiers, pytest.raises(UserError, match=message):
        if "made" in text and "files" not in verifiers.closed:
            raise UserError("mine.py does not run: PermissionError: verifiers are kept from files, where the kernel can")
        verifiers.prepare([Task("question", "", f"{tmp_path / 'mine.py'}:judge")])


def test_a_file_in_the_current_folder_is_none_that_the_worker_imports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trap = f"open({str(tmp_path / 'was_run')!r}, 'w').close()\n"
    (tmp_path / "json.py").write_text(trap)
    (tmp_path / "etude" / "rewards").mkdir(parents=True)
    for name in ("etude/__init__.py", "etude/rewards/__init__.py", "etude/rewards/worker.py", "etude/rewards/guard.py"):
        (tmp_path / name).write_text(trap)
    with VerifierReward() as verifiers:
        assert verifiers.judge([("5", Task("question", "5", "numeric"))])[0].score == 1.0
    assert not (tmp_path / "was_run").exists()


def test_each_verifier_file_has_its_own_process(tmp_path):
    (tmp_path / "evil.py").write_text(
        "import json, etude.rewards.worker as worker, etude.tasks.verifiers as verifiers\n"
        "from etude.tasks.reward import Reward\n"
        "right = lambda text, task: Reward(1.0)\n"
        "def patch():\n"
        "    worker._reward = lambda *_: Reward(1.0).to_json()\n"
        "    worker.verifier_named = lambda name: right\n"
        "    for name in verifiers.VERIFIERS: verifiers.VERIFIERS[name] = right\n"
        "patch()\n"
        "def judge(text, task):\n"
        "    patch()\n"
        "    dumps = json.dumps\n"
        "    json.dumps = lambda found: dumps(found | {'reward': Reward(1.0).to_json()})\n"
        "    return 1.0\n"
    )
    (tmp_path / "mine.py").write_text("def judge(text, task): return text == 'right'")
    evil, mine = (Task("question", "", f"{tmp_path / name}.py:judge") for name in ("evil", "mine"))
    built_in = Task("question", "5", "numeric")
    with VerifierReward() as verifiers:
        for pairs in ([("a", evil), ("6", built_in), ("wrong", mine)], [("wrong", mine), ("6", built_in), ("a", evil)]):
            found = {task.verifier: reward for (_, task), reward in zip(pairs, verifiers.judge(pairs), strict=True)}
            assert (found["numeric"].score, found[mine.verifier].score) == (0.0, 0.0)


# ---------------------------------------------------------------------- what a verifier answers


EVIL = """
import json, os, time
import etude.tasks.functions
from etude.tasks.reward import Reward

etude.tasks.functions._checked = lambda reward: reward  # a verifier may change the process that it runs in

class Odd(Reward):
    answers = {}
    def to_json(self): return self.answers

def says(**fields):
    whole = {"score": 1.0, "parts": {}, "step_values": [], "message": "", "words": "", "right_at": 1.0} | fields
    reward = Odd(1.0)
    object.__setattr__(reward, "answers", whole)
    return reward

def write(line):
    for number in range(3, 64):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith(("socket:", "pipe:")): os.write(number, line)
        except OSError:
            pass

def deep(depth):
    found = 1.0
    for _ in range(depth): found = [found]
    return found

WHOLE = {"score": 1.0, "parts": {}, "step_values": [], "message": "", "words": "", "right_at": 1.0}
CASES = {
    "missing keys": lambda: says(score=1.0).__class__(1.0),
    "deep values": lambda: says(step_values=deep(900)),
    "a reward of megabytes": lambda: says(more="x" * 2_000_000),
    "a list": lambda: says(**{}) if object.__setattr__(says(), "answers", []) else Odd(1.0),
    "nonsense": lambda: write(b"nonsense\\n"),
    "deep": lambda: write(b"[" * 200_000 + b"\\n"),
    "no end": lambda: write(b"x" * 3_000_000),
    "another's number": lambda: write(b'{"id": 0, "reward": ' + json.dumps(WHOLE).encode() + b"}\\n"),
    "loaded": lambda: [write(b'{"loaded": 0}\\n') or time.sleep(0.05) for _ in range(400)],
    "loading": lambda: [write(b'{"loading": 0}\\n') or time.sleep(0.05) for _ in range(400)],
    "ready": lambda: write(b'{"ready": true, "loaded": true, "judging": true, "closed": []}\\n'),
    "ended": lambda: write(b'{"ended": "well"}\\n') or os._exit(0),
}

def judge(text, task):
    return CASES[text]() if text in CASES else float(text == "right")
"""


@pytest.fixture
def evil(tmp_path) -> Task:
    (tmp_path / "evil.py").write_text(EVIL)
    return Task("question", "", f"{tmp_path / 'evil.py'}:judge")


def test_an_answer_that_is_no_reward_costs_its_item_and_nothing_else(evil):
    cases = re.findall(r'^    "([^"]+)": lambda', EVIL, re.MULTILINE)
    assert len(cases) == 12
    texts = [text for case in cases for text in ("right", case, "wrong")]
    start = time.monotonic()
    with VerifierReward(timeout_seconds=1.0) as verifiers:
        rewards = verifiers.judge([(text, evil) for text in texts])
    assert time.monotonic() - start < 12
    scores = {text: reward.score for text, reward in zip(texts, rewards, strict=True)}
    assert scores == dict.fromkeys(cases) | {"right": 1.0, "wrong": 0.0}
    assert [reward.score for reward in rewards if reward.score is not None] == [1.0, 0.0] * len(cases)
    assert all(len(reward.message) <= 4096 for reward in rewards)
    assert verifiers.counts["judged"] == len(texts) and verifiers.counts["timed_out"] + verifiers.counts["crashed"] == len(cases)


def test_a_line_that_nobody_asked_for_does_not_start_the_time_anew(evil):
    with VerifierReward(timeout_seconds=0.5) as verifiers:
        verifiers.prepare([evil])
        for case in ("loaded", "loading"):
            start = time.monotonic()
            assert verifiers.judge([(case, evil)])[0].score is None
            assert time.monotonic() - start < 2


# ---------------------------------------------------------------------- what a verifier has


def test_a_verifier_sees_no_key_of_the_environment_but_what_is_meant_for_it(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "VERIFIER_DATA"):
        monkeypatch.setenv(name, "secret")
    (tmp_path / "mine.py").write_text(
        "import os\nfrom etude.tasks.reward import Reward\n"
        "def judge(text, task): return Reward(1.0, message=' '.join(name for name in os.environ if os.environ[name] == 'secret'))"
    )
    task = Task("question", "", f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward() as verifiers:
        assert verifiers.judge([("", task)])[0].message == "VERIFIER_DATA"
    with VerifierReward(isolate=False) as verifiers:
        assert len(verifiers.judge([("", task)])[0].message.split()) == 5


def test_temporary_files_go_with_their_item_and_those_of_loading_stay(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os, tempfile\nfrom etude.tasks.reward import Reward\n"
        "own = tempfile.mkdtemp(prefix='own')\n"
        "def judge(text, task):\n"
        "    before = os.listdir(tempfile.gettempdir())\n"
        "    if text == 'hang':\n"
        "        while True: open(tempfile.mkdtemp() + '/large', 'w').write('x' * 100_000)\n"
        "    if text == 'deep':\n"
        "        os.chdir(tempfile.gettempdir())\n"
        "        for _ in range(100): os.mkdir('x' * 50); os.chdir('x' * 50)\n"
        "        open('file', 'w').close()\n"
        "    if text == 'closed': os.mkdir(os.path.join(tempfile.mkdtemp(), 'closed'), 0)\n"
        "    open(tempfile.mkstemp()[1], 'w').write('x')\n"
        "    return Reward(float(os.path.isdir(own)), message=str(len(before)))\n"
    )
    task = Task("question", "", f"{tmp_path / 'mine.py'}:judge")
    with VerifierReward(timeout_seconds=5.0) as verifiers:
        rewards = verifiers.judge([(text, task) for text in ("a", "b", "deep", "c")])
        assert [(reward.score, reward.message) for reward in rewards] == [(1.0, "1")] * 4
        verifiers.timeout_seconds = 0.3
        hung, after = verifiers.judge([("hang", task), ("a", task)])
        assert (hung.score, after.score, after.message) == (None, 1.0, "1")
        assert verifiers.judge([("closed", task)])[0].score == 1.0
        (child,) = verifiers._children.values()
        assert Path(child._scratch).is_dir()
    assert not Path(child._scratch).exists()


# ---------------------------------------------------------------------- beginning and end


def test_a_process_that_does_not_start_is_one_sentence(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"^the verifiers' process does not start: exit code 1: it needs /bin/false with etude, a folder"):
        VerifierReward().judge([("5", Task("question", "5", "numeric"))])


def test_a_run_that_is_killed_while_its_verifiers_start_leaves_no_folder(tmp_path, wait_until_gone):
    script = "from etude.rewards.verifier_reward import VerifierReward\nprint('', flush=True)\nVerifierReward(600).closed"
    guards = set()
    for delay_seconds in (0.0, 0.05, 0.1, 0.2, 0.3):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}) as run:
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(delay_seconds)
            guards |= set(Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()) if sys.platform == "linux" else set()
            run.kill()
    assert all(wait_until_gone(pid) for pid in guards) and not list(tmp_path.iterdir())
