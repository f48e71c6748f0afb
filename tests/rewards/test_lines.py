"""Lines between two ends that neither wait for the other."""

import socket
import threading
import time

import pytest

from etude.rewards.lines import GONE, Lines


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Lines(ours, 1_000), theirs


def test_lines_come_one_by_one_and_the_end_after_the_last(ends):
    lines, other = ends
    other.sendall(b"one\ntwo\n\nthree")
    other.shutdown(socket.SHUT_WR)
    assert [lines.receive(time.monotonic() + 1) for _ in range(5)] == [b"one", b"two", b"", GONE, GONE]


def test_nothing_until_the_deadline_is_none(ends):
    lines, other = ends
    other.sendall(b"half")
    start = time.monotonic()
    assert lines.receive(start + 0.1) is None and 0.1 <= time.monotonic() - start < 1
    other.sendall(b" a line\n")
    assert lines.receive(time.monotonic() + 1) == b"half a line"


def test_a_line_without_end_is_the_end(ends):
    lines, other = ends
    other.sendall(b"x" * 1_001)
    assert lines.receive(time.monotonic() + 1) == GONE


def test_large_sends_and_reads_do_not_deadlock(ends):
    lines, other = ends
    sent = b"request\n" * 30_000

    def answer():
        with other.makefile("rwb") as file:
            for _ in range(30_000):
                file.write(b"to " + file.readline())
                file.flush()

    thread = threading.Thread(target=answer)
    thread.start()
    lines.send(sent)
    assert all(lines.receive(time.monotonic() + 10) == b"to request" for _ in range(30_000))
    thread.join()


def test_is_silent_tells_if_something_can_be_read(ends):
    lines, other = ends
    assert lines.is_silent()
    other.sendall(b"a\nb")
    assert not lines.is_silent() and lines.receive(time.monotonic() + 1) == b"a" and not lines.is_silent()


def test_a_closed_end_is_noticed_and_sends_are_dropped(ends):
    lines, other = ends
    other.close()
    assert not lines.is_silent()
    lines.send(b"anybody\n")
    assert lines.receive(time.monotonic() + 1) == GONE
