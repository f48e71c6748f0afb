"""Benchmarks run in a tiny form; what they measure here is nobody's claim."""

import pytest

from bench.exactness import measured


def test_what_resuming_exactly_costs_is_counted_by_writer():
    found = measured("tiny", 3, ["--machine.precision", "float32", "--checkpoint_every", "2"], None)
    assert (found["n"], found["checkpoint_every"]) == (3, 2)
    assert found["share"].keys() == {"ledger", "attempts", "metrics", "checkpoints"}
    assert all(0 < value < 1 for value in found["share"].values())
    assert found["all"] == pytest.approx(sum(found["share"].values()))
