"""Signals end a run between what must be whole; real signals are sent to this process."""

import os
import signal
import threading

import pytest

from etude.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_heeded_at_once_where_nothing_is_half_done(number, status):
    with pytest.raises(Interrupted) as stop, Interruption():
        os.kill(os.getpid(), number)
        raise AssertionError("went on")
    assert (stop.value.exit_status, stop.value.name) == (status, signal.Signals(number).name)


def test_a_signal_waits_for_the_end_of_a_whole_block():
    done = []
    with pytest.raises(Interrupted), Interruption() as interruption:
        with interruption.whole():
            with interruption.whole():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("inner")
            done.append("outer")
        done.append("too far")
    assert done == ["inner", "outer"]


def test_handling_an_interruption_is_not_interrupted_again():
    done = []
    with Interruption() as interruption:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            interruption.acknowledge()
            with interruption.whole():
                done.append("saved")
            done.append("left")
    assert done == ["saved", "left"]


def test_a_lost_request_is_heeded_at_the_end_of_the_next_whole_block():
    done = []
    with pytest.raises(Interrupted), Interruption() as interruption:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except Interrupted:
            done.append("swallowed")
        with interruption.whole():
            done.append("whole")
        done.append("too far")
    assert done == ["swallowed", "whole"]


def test_a_second_signal_does_not_wait_but_an_echo_of_the_first_does(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("etude.training.interruption.time.monotonic", lambda: now[0])
    done = []
    with pytest.raises(KeyboardInterrupt) as stop, Interruption() as interruption, interruption.whole():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("echo")
        now[0] += 2
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")
    assert done == ["echo"]
    assert not isinstance(stop.value, Interrupted)


def test_handlers_are_put_back_and_other_threads_go_without():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    found = []

    def elsewhere() -> None:
        with Interruption() as interruption, interruption.whole():
            found.append("ran")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == ["ran"]
