import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etude.errors import UserError
from etude.feedback.outcome import OutcomeFeedback
from etude.tasks.task import Task

VERIFIER = """
import os, signal, subprocess, sys, time
from etude.feedback.verdict import Verdict

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
    if text == "parts": return Verdict(1.0, {"object": object()})
    if text == "print":
        print("noise" * 100_000); sys.stderr.write("noise" * 100_000); os.write(1, b"{}\\n"); os.system("echo noise")
    if text == "read": assert sys.stdin.read() == ""
    if text == "none": return None
    if text == "pid": return Verdict(1.0, {}, (0.5, 1.0), str(os.getpid()))
    return text == task.answer
"""


@pytest.fixture
def task(tmp_path):
    (tmp_path / "mine.py").write_text(VERIFIER)
    return Task("question", "right", f"{tmp_path / 'mine.py'}:judge", metadata={"file": str(tmp_path / "child")})


def test_a_thousand_numbers_are_judged_in_order_and_quickly():
    pairs = [(f"It is {i}", Task("question", str(i - i % 2), "numeric")) for i in range(1000)]
    with OutcomeFeedback() as feedback:
        feedback.judge(pairs[:1])
        start = time.perf_counter()
        verdicts = feedback.judge(pairs)
        assert time.perf_counter() - start < 3  # 0.15 s on an idle machine
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0] * 500
    assert feedback.counts == {"judged": 1001, "timed_out": 0, "crashed": 0}


def test_trouble_costs_its_own_item_and_nothing_else(task):
    texts = [
        "right",
        "hang",
        "wrong",
        "raise",
        "right",
        "exit",
        "leave",
        "right",
        "segfault",
        "allocate",
        "string",
        "parts",
        "none",
        "right",
    ]
    with OutcomeFeedback(timeout_seconds=1.0, memory_bytes=2 * 2**30) as feedback:
        verdicts = feedback.judge([(text, task) for text in texts])
    scores = [verdict.score for verdict in verdicts]
    assert scores == [1.0, None, 0.0, None, 1.0, None, None, 1.0, None, None, None, None, None, 1.0]
    messages = {text: verdict.message for text, verdict in zip(texts, verdicts, strict=True)}
    assert messages["hang"] == "timed out after 1.0 s"
    assert messages["raise"] == "the verifier raised KeyError: 'oh'"
    assert messages["exit"] == "the verifier raised SystemExit: 3"
    assert messages["leave"] == "the verifier's process ended: exit code 7"
    assert messages["segfault"] == "the verifier's process ended: signal SIGSEGV"
    assert messages["allocate"].startswith("the verifier raised MemoryError")
    assert messages["string"].startswith("the verifier raised TypeError: a verifier returns a Verdict")
    assert messages["parts"].startswith("the verifier raised TypeError")
    assert feedback.counts == {"judged": len(texts), "timed_out": 1, "crashed": 7}


def test_what_a_verifier_prints_or_reads_does_not_reach_the_protocol(task, capfd):
    with OutcomeFeedback() as feedback:
        verdicts = feedback.judge([(text, task) for text in ("print", "read", "print", "right")])
    assert [verdict.score for verdict in verdicts] == [0.0, 0.0, 0.0, 1.0]
    assert capfd.readouterr() == ("", "")


def test_a_verdict_comes_back_whole_and_the_child_goes_with_its_context(task, is_running, wait_until_gone):
    with OutcomeFeedback() as feedback:
        (verdict,) = feedback.judge([("pid", task)])
        assert verdict.step_values == (0.5, 1.0)
        assert int(verdict.message) != os.getpid()
        assert is_running(verdict.message)
        assert feedback.judge([("pid", task)])[0].message == verdict.message
    assert wait_until_gone(verdict.message)


def test_a_time_out_kills_what_the_verifier_started(task, wait_until_gone):
    with OutcomeFeedback(timeout_seconds=1.0, isolate=False) as feedback:
        assert feedback.judge([("hang with a child", task)])[0].score is None
        assert wait_until_gone(Path(task.metadata["file"]).read_text())


def test_a_child_that_was_killed_between_batches_is_replaced(task, wait_until_gone):
    with OutcomeFeedback() as feedback:
        pid = int(feedback.judge([("pid", task)])[0].message)
        os.kill(pid, 9)
        assert wait_until_gone(pid)
        assert feedback.judge([("right", task)])[0].score == 1.0
        assert feedback.counts["crashed"] == 0


def test_the_child_dies_with_its_parent(task, killed_run, wait_until_gone):
    assert wait_until_gone(killed_run(task, "pid"))


def test_large_texts_and_odd_characters_pass_through(task):
    long = Task("question", "x" * 2_000_000, task.verifier)
    odd = Task("question", "a\nb\x00\ud800 é", task.verifier)
    with OutcomeFeedback() as feedback:
        verdicts = feedback.judge([(long.answer, long), (odd.answer, odd)] * 3)
    assert [verdict.score for verdict in verdicts] == [1.0] * 6


def test_foreign_verifiers_work_under_the_memory_limit_and_loading_is_not_charged():
    entry = {"question": "question", "answer": "12", "metadata": {}}
    family = Task("question", "12", "reasoning_gym", metadata={"family": "gcd", "entry": entry})
    pairs = [
        ("$x + 1$", Task("question", "1+x", "math")),
        ("12", family),
        ("9^{9^{9^{9^9}}}", Task("question", "1", "math")),
        ("120", family),
    ]
    with OutcomeFeedback(timeout_seconds=1.0) as feedback:
        verdicts = feedback.judge(pairs)
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0, None, 0.0]


def test_chat_prompts_arrive_as_tuples_and_an_empty_batch_is_fine(tmp_path):
    (tmp_path / "mine.py").write_text("def judge(text, task): return isinstance(task.prompt, tuple) and task.question == text")
    chat = Task(({"role": "user", "content": "hello"},), None, f"{tmp_path / 'mine.py'}:judge")
    with OutcomeFeedback() as feedback:
        assert feedback.judge([]) == []
        assert feedback.judge([("hello", chat)])[0].score == 1.0


def test_wrong_arguments_are_told_of(task):
    with pytest.raises(UserError, match="timeout_seconds must be above 0, got 0"):
        OutcomeFeedback(0)
    with OutcomeFeedback() as feedback, pytest.raises(UserError, match="must hold JSON values only"):
        feedback.judge([("right", Task("question", "right", metadata={"a": object()}))])


def test_the_worker_imports_nothing_heavy():
    heavy = ("torch", "transformers", "datasets", "sympy", "reasoning_gym")
    script = f"import sys, etude.feedback.worker; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---------------------------------------------------------------------- beside something else


def test_what_is_begun_is_judged_in_order_beside_what_goes_on(task):
    texts = [["right", "wrong"], ["hang", "right"], ["leave"], ["right"]]
    with OutcomeFeedback(timeout_seconds=1.0) as feedback:
        begun = [feedback.begin([(text, task) for text in batch]) for batch in texts]
        scores = [[verdict.score for verdict in future.result()] for future in begun]
        assert feedback.judge([("right", task)])[0].score == 1.0  # from here again, with a child of the thread's
    assert scores == [[1.0, 0.0], [None, 1.0], [None], [1.0]]
    assert feedback.counts == {"judged": 7, "timed_out": 1, "crashed": 1}


def test_what_is_wrong_with_a_batch_is_raised_by_its_future_alone(task):
    with OutcomeFeedback() as feedback:
        wrong = feedback.begin([("right", Task("question", "right", "exact", metadata={"object": object()}))])
        right = feedback.begin([("right", task)])
        with pytest.raises(UserError, match="must hold JSON values only"):
            wrong.result()
        assert right.result()[0].score == 1.0


@pytest.mark.parametrize("wait_seconds", [0.0, 2.0])  # while the child starts, and while the verifier hangs
def test_the_end_does_not_wait_for_a_verifier_that_hangs(task, wait_seconds):
    start = time.monotonic()
    with OutcomeFeedback(timeout_seconds=600) as feedback:
        begun = [feedback.begin([("hang", task)] * 3) for _ in range(3)]
        time.sleep(wait_seconds)
    assert time.monotonic() - start < wait_seconds + 30
    assert all(future.done() for future in begun)
    assert not feedback._children
    with feedback:  # and it can be used again
        assert feedback.begin([("right", task)]).result()[0].score == 1.0
