"""Code of a model is judged by its tests, and what a hostile program does costs its own score only."""

import os
import time
from pathlib import Path

import pytest

from etude.rewards.verifier_reward import VerifierReward
from etude.tasks.code import code, find_code, read_setup, read_tests, run_tests
from etude.tasks.code_asserts import from_plain, split_assert, to_plain
from etude.tasks.code_confinement import can_confine, has_landlock
from etude.tasks.reward import Reward
from etude.tasks.task import Task

needs_linux = pytest.mark.skipif(
    not can_confine() or isinstance(run_tests("x = 1", ["assert x == 1"], ""), Reward), reason="needs a kernel that confines programs"
)
ADD = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]
RIGHT = "def add(a, b):\n    return a + b\n"


def task(*tests: object, **metadata: object) -> Task:
    return Task("question", None, "code", metadata={"tests": list(tests), **metadata})


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1\n```\nor\n```Python\nx = 2\n```\nwhich prints\n```\n2\n```", "x = 2\n"),
        ("```\nx = 1\n```\nor\n```text\nx = 2\n```", "x = 2\n"),
        ("So:\n```py\nx = 1", "x = 1"),
        ("```python\n```", ""),
    ],
)
def test_the_last_python_block_is_the_code(text, found):
    assert find_code(text) == found


def test_fences_of_a_megabyte_cost_little():
    start = time.perf_counter()
    for text in ("```" * 300_000, "```\n" * 250_000, "```python\n" * 100_000, " " * 1_000_000, "`" * 1_000_000):
        find_code(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("metadata", [{}, {"tests": []}, {"tests": "assert f() == 1"}, {"tests": [1]}, {"tests": [{"input": "1"}]}])
def test_a_task_without_tests_is_unscored(metadata):
    reward = code("x = 1", Task("question", None, "code", metadata=metadata))
    assert reward.score is None and "tests" in reward.message


def test_columns_of_mbpp_are_read():
    metadata = {"test_list": ["assert f() == 1"], "test_setup_code": "x = 1", "test_imports": ["import math", "import re"]}
    assert read_tests(metadata) == (["assert f() == 1"], "")
    assert read_setup(metadata) == "x = 1\nimport math\nimport re"


# ---------------------------------------------------------------------- asserts


@pytest.mark.parametrize(
    ("test", "calls"),
    [
        ("assert add(1, 2) == 3", ["add(1, 2)"]),
        ("assert set(common((3, 4), (5, 4))) == set((4,))", ["common((3, 4), (5, 4))"]),
        ("assert math.isclose(area(2), 3.5), 'message'", ["area(2)"]),
        ("assert Stack().push(3).top() == 3 and size == 1", ["Stack().push(3).top()", "size"]),
        ("assert apply(lambda x: x + 1, [1]) == [2]", ["apply(lambda x: x + 1, [1])"]),
        ("assert sum(10, 15) == 6", ["sum(10, 15)"]),
        ("assert not f(1)[0]", ["f(1)[0]"]),
    ],
)
def test_an_assert_is_split_into_calls_of_the_program_and_a_comparison(test, calls):
    split = split_assert(test, {"math"}, {"sum"})
    assert split is not None and split.calls == calls


@pytest.mark.parametrize(
    "test", ["assert all(f(x) == y for x, y in [(1, 2)])", "x = f(1)", "assert f(1) == 1\nassert f(2) == 2", "assert 1"]
)
def test_what_cannot_be_computed_beforehand_is_not_split(test):
    assert split_assert(test, set(), set()) is None


@pytest.mark.parametrize("value", [None, True, 3, -2.5, "a", [1, (2, {3})], {"a": {1: [b"x"]}}, frozenset({1}), 1 + 2j, float("inf")])
def test_plain_values_cross_unchanged(value):
    found = from_plain(to_plain(value))
    assert found == value and type(found) is type(value)


def test_an_object_does_not_cross():
    class Equal:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    class Number(int):
        __eq__ = Equal.__eq__
        __hash__ = int.__hash__

    with pytest.raises(TypeError, match="it gave a Equal, which is no plain data"):
        to_plain([Equal()])
    assert from_plain(to_plain(Number(5))) != 3


@pytest.mark.parametrize(
    "found", [{}, ["object", []], ["list"], ["complex", "ab"], ["dict", [1]], ["bytes", "x"], ["set", [["list", []]]], []]
)
def test_what_is_no_value_is_refused(found):
    with pytest.raises((ValueError, TypeError)):
        from_plain(found)


# ---------------------------------------------------------------------- scores


@needs_linux
def test_the_score_is_the_share_of_tests_that_hold():
    assert code(RIGHT, task(*ADD)) == Reward(1.0, {"parsable": 1.0})
    half = code("def add(a, b): return 3", task(*ADD))
    assert half.score == 0.5
    assert half.message == "assert add(2, 2) == 4 fails: add(2, 2) gave 3"
    assert half.words == "Your code does not pass all tests: assert add(2, 2) == 4 fails: add(2, 2) gave 3."


@needs_linux
def test_code_that_does_not_compile_is_not_parsable():
    for text, words in [
        ("def add(", "Your code has an error: SyntaxError"),
        ("", "I found no code"),
        ("I can't.", "Your code has an error"),
    ]:
        reward = code(text, task(*ADD))
        assert (reward.score, reward.parts["parsable"]) == (0.0, 0.0) and reward.words.startswith(words)


@needs_linux
@pytest.mark.parametrize(
    ("program", "test", "setup"),
    [
        ("class Node:\n    def __init__(self, value): self.value = value", "assert root.value == 1", "root = Node(1)"),
        ("def f(x): return x / 3", "assert isclose(f(1), 0.333, abs_tol=0.01)", "from math import isclose"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}", ""),
        ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]", ""),
        ("def f(x): return x", "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)", ""),
        ("def f(x): return 2 * x", "assert [f(x) for x in (1, 2)] == [2, 4]", ""),
        ("import threading\nout = []\nt = threading.Thread(target=lambda: out.append(1))\nt.start(); t.join()", "assert out == [1]", ""),
        ("import re, json, datetime, heapq, itertools, random, hashlib, decimal, typing, dataclasses", "assert re.escape('a') == 'a'", ""),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: 'int'", "assert P(3).x == 3", ""),
        ("print('a word')\ndef f(): return 1", "assert f() == 1", ""),
    ],
)
def test_right_programs_pass(program, test, setup):
    reward = code(f"```python\n{program}\n```", task(test, setup=setup))
    assert reward.score == 1.0, reward.message


@needs_linux
def test_programs_that_read_and_print_are_compared_by_their_output():
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 5", "output": "10"}]
    assert code("a, b = map(int, input().split())\nprint(a + b, ' ')", task(*tests)).score == 1.0
    assert (
        code(
            "import sys\nif __name__ == '__main__':\n    print(sum(map(int, sys.stdin.read().split())))\n    sys.exit()", task(*tests)
        ).score
        == 1.0
    )
    wrong = code("print(3)", task(*tests))
    assert wrong.score == 0.5 and "'10'" in wrong.message and "10" not in wrong.words
    assert wrong.words == "Your code does not pass all tests: for the input '5 5' it printed '3'."


@needs_linux
def test_an_error_of_the_program_is_told():
    reward = code("def add(a, b): return a / 0", task(*ADD))
    assert reward.score == 0.0 and "ZeroDivisionError: division by zero" in reward.words


@needs_linux
def test_a_hundred_tests_are_run_and_others_left_out():
    assert code("def f(x): return x if x < 100 else 0", task(*(f"assert f({i}) == {i}" for i in range(120)))).score == 1.0


# ---------------------------------------------------------------------- hostile programs

AFTER = "\ndef add(a, b): return 3\n"
"""So that the test holds if the program gets there."""
EQUAL = "class E:\n    def __eq__(self, other): return True\n    def __getattr__(self, name): return E()\n"
FILES = "import os\nfor number in range(64):\n    try: os.write(number, b'{TEXT}\\n')\n    except OSError: pass\n"
HOSTILE = {
    "sys.exit": "import sys\nsys.exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "exit in the function": "import os\ndef add(a, b): os._exit(0)",
    "equal to everything": f"{EQUAL}def add(a, b): return E()",
    "equal number": "class E(int):\n    def __eq__(self, other): return True\ndef add(a, b): return E(9)",
    "replaced assert": (
        "import builtins\nbuiltins.AssertionError = ValueError\nbuiltins.exec = builtins.eval = lambda *_: 7\ndef add(a, b): return 7"
    ),
    "own excepthook": "import sys\nsys.excepthook = lambda *_: None\ndef add(a, b): raise ValueError",
    "forged results": FILES.replace("TEXT", '{"syntax": "", "failures": ["", ""]}') + "os._exit(0)",
    "forged reply": FILES.replace("TEXT", '{"values": [true]}') + "os._exit(0)",
    "kill the parent": f"import os, signal\nos.kill(os.getppid(), signal.SIGKILL){AFTER}",
    "kill all": f"import os, signal\nos.kill(-1, signal.SIGKILL){AFTER}",
    "signal by a pipe": f"import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid()){AFTER}",
    "limit the parent": f"import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0)){AFTER}",
    "fork": f"import os\nos.fork(){AFTER}",
    "fork bomb": f"import os\nwhile True: os.fork(){AFTER}",
    "program": f"import subprocess\nsubprocess.Popen(['sleep', '600']){AFTER}",
    "replaced by a program": f"import os\nos.execv('/bin/true', ['true']){AFTER}",
    "session": f"import os\nos.setsid(){AFTER}",
    "threads": f"import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(){AFTER}",
    "print forever": f"while True: print('x' * 1000){AFTER}",
    "errors forever": f"import sys\nwhile True: sys.stderr.write('x' * 1000){AFTER}",
    "memory": f"x = bytearray(1 << 33){AFTER}",
    "memory by and by": f"x = []\nwhile True: x.append(bytearray(1 << 24)){AFTER}",
    "deep recursion": f"import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf(){AFTER}",
    "deep reply": "def add(a, b):\n    x = []\n    for _ in range(100_000): x = [x]\n    return x",
    "huge reply": "def add(a, b): return 'x' * (1 << 24)",
    "endless": f"while True: pass{AFTER}",
    "sleep": f"import time\ntime.sleep(600){AFTER}",
    "endless function": "def add(a, b):\n    while True: pass",
    "internet": f"import socket\nsocket.create_connection(('127.0.0.1', 80)){AFTER}",
    "socket": f"import socket\nsocket.socket(socket.AF_UNIX){AFTER}",
    "write": f"open('KEPT', 'w').write('x'){AFTER}",
    "write in the folder": f"open('new', 'w').write('x'){AFTER}",
    "remove": f"import os\nos.remove('KEPT'){AFTER}",
    "mode": f"import os\nos.chmod('KEPT', 0){AFTER}",
    "environment": "import os\ndef add(a, b): return 3 if os.environ.get('SECRET') else len(os.environ)",
    "etude": f"import etude.rewards.worker{AFTER}",
}


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SECRET", "1")
    (tmp_path / "kept").write_text("mine")
    return tmp_path / "kept"


def programs_left() -> list[str]:
    """Processes of the runner that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(b"etude.tasks.code_runner" in word for word in words) and str(os.getpid()).encode() in words:
            found.append(path.parent.name)
    return found


@needs_linux
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_scores_0_and_leaves_nothing(name, kept):
    start = time.monotonic()
    reward = code(HOSTILE[name].replace("KEPT", str(kept)), task(ADD[0]))
    assert reward.score == 0.0, reward
    assert reward.message and len(reward.message) < 1000 and len(reward.words) < 1000
    assert kept.read_text() == "mine" and sorted(path.name for path in kept.parent.iterdir()) == ["kept"]
    assert programs_left() == [] and time.monotonic() - start < 10


NEXT = "import os\nos.kill(os.getppid(), 9)", "while True: print(1)", "import os\nwhile True: os.fork()", "import os\nos._exit(0)"


@needs_linux
def test_the_worker_of_verifiers_judges_the_next_answer_normally():
    texts = [RIGHT, *(text for hostile in NEXT for text in (hostile, RIGHT)), "no code"]
    with VerifierReward() as verifiers:
        rewards = verifiers.judge([(text, task(*ADD)) for text in texts])
        assert [reward.score for reward in rewards] == [1.0, *[0.0, 1.0] * len(NEXT), 0.0], [reward.message for reward in rewards]
        assert verifiers.counts == {"judged": len(texts), "timed_out": 0, "crashed": 0}
        assert verifiers.judge([("x", task()), ("5", Task("question", "5", "numeric"))])[1].score == 1.0
    assert programs_left() == []


@needs_linux
def test_an_answer_that_takes_too_long_still_has_a_score_in_the_time_of_a_verifier():
    with VerifierReward() as verifiers:
        slow, right = verifiers.judge([("while True: pass", task(*ADD, "assert add(1, 1) == 2")), (RIGHT, task(*ADD))])
    assert (slow.score, right.score) == (0.0, 1.0) and "took more than" in slow.message
    assert programs_left() == []


@needs_linux
def test_a_time_out_of_the_verifier_leaves_no_program():
    with VerifierReward(timeout_seconds=0.7) as verifiers:
        assert verifiers.judge([("while True: pass", task(*ADD))])[0].score is None
        assert programs_left() == []


@needs_linux
def test_a_program_cannot_read_files_of_the_user(kept):
    if not has_landlock():
        pytest.skip("needs Landlock")
    for path in (kept, Path(__file__), Path("/etc/passwd"), Path("/proc/self/environ"), Path(f"/proc/{os.getpid()}/cmdline")):
        reward = code(f"open({str(path)!r}).read()\ndef add(a, b): return 3", task(*ADD))
        assert reward.score == 0.0 and "PermissionError" in reward.message, path
    listed = code("import os\nos.listdir('/')\ndef add(a, b): return 3", task(*ADD))
    assert listed.score == 0.0 and "PermissionError" in listed.message


@needs_linux
def test_a_program_that_prints_forever_fails_at_a_megabyte_and_not_at_its_time_out():
    start = time.monotonic()
    assert "OSError" in code("while True: print('x' * 1000)", task({"input": "", "output": "x"})).message
    assert time.monotonic() - start < 1.5


@needs_linux
def test_a_statement_that_cannot_be_split_is_not_passed_by_an_early_end():
    check = "def check(candidate):\n    assert candidate(1) == 1\ncheck(f)"
    for program in ("import os\nos._exit(0)", "import sys\nsys.exit(0)", "import os\ndef f(x): os._exit(0)", "def f(x): raise SystemExit"):
        assert code(program, task(check)).score == 0.0


SEARCH = """
import gc, os, sys
def add(a, b):
    seen = [repr(each)[:100_000] for each in gc.get_objects() if isinstance(each, (list, dict, tuple))]
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(list(frame.f_globals))]
        frame = frame.f_back
    for number in range(64):
        try:
            seen.append(str(os.pread(number, 1_000_000, 0)))
        except OSError:
            pass
    return any(str(WANTED) in each for each in seen)
"""


@needs_linux
def test_a_program_that_searches_its_process_finds_its_calls_but_not_what_is_expected():
    expected = "assert add(271828, 1) == 420817"
    called, wanted = (
        code(SEARCH.replace("WANTED", text), task(expected)).message for text in ("271000 + int('828')", "420000 + int('817')")
    )
    assert called.endswith("add(271828, 1) gave True") and wanted.endswith("add(271828, 1) gave False")
