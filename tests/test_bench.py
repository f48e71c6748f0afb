"""Benchmarks run in a tiny form; what they measure here is nobody's claim."""

import json

import pytest
import torch

from bench import reuse, rollout, step
from bench.exactness import measured
from bench.limits import decoding_limit
from bench.peer import Peer
from etude.errors import UserError


def test_what_resuming_exactly_costs_is_counted_by_writer():
    found = measured("tiny", 3, ["--machine.precision", "float32", "--checkpoint_every", "2"], None)
    assert (found["n"], found["checkpoint_every"]) == (3, 2)
    assert found["share"].keys() == {"ledger", "attempts", "metrics", "checkpoints"}
    assert all(0 < value < 1 for value in found["share"].values())
    assert found["all"] == pytest.approx(sum(found["share"].values()))


def test_rollouts_are_compared_by_turns_on_the_same_prompts(tmp_path):
    found = rollout.measured("tiny-random", rollout.TINY, ["generate"], rounds=2)
    assert [row["shape"]["prompts"] for row in found["shapes"]] == [2, 1]
    for row in found["shapes"]:
        assert row["speed"].keys() == row["peak_bytes"].keys() == {"etude", "generate"}
        assert row["speed"]["etude"]["low"] <= row["speed"]["etude"]["median"] <= row["speed"]["etude"]["high"]
        assert min(row["peak_bytes"].values()) > 2**26 and row["limit"] > 0
    assert found["ratios"] == {"generate": min(row["ratio"]["generate"]["median"] for row in found["shapes"])}
    rollout.write(found, tmp_path / "rollout.json")
    assert json.loads((tmp_path / "rollout.json").read_text()) == found
    assert f"{found['ratios']['generate']:.2f} x generate" in (tmp_path / "rollout.md").read_text()
    assert "tokens a second" in (tmp_path / "rollout.svg").read_text()


def test_steps_are_compared_by_turns_with_trl(monkeypatch):
    monkeypatch.setitem(step.PEERS, "trl-tuned", Peer("trl_step.py"))  # in this environment, which has TRL for other tests
    found = step.measured("tiny-random", [step.TINY], ["trl-tuned"], rounds=2)
    (row,) = found["shapes"]
    assert row["seconds"].keys() == {"etude", "trl-tuned", step.HALF}
    assert row["sample_seconds"]["low"] > 0 and row["sample_seconds"]["median"] < row["seconds"]["etude"]["high"]
    assert found["ratios"] == {"trl-tuned": row["ratio"]["trl-tuned"]["median"]}
    assert found["peers"]["trl-tuned"]["versions"]["trl"].startswith("1.16")
    assert "| 2 x 2 x 4 | 9 |" in step.table(found)


def test_steps_with_and_without_drafts_make_the_same_attempts():
    found = reuse.measured("tiny", 32, 2, ["--machine.precision", "float32", "--warm_start.steps", "20"])
    assert [row["step"] for row in found["steps"]] == [3, 4]
    assert all(row["same_attempts"] == 1 and 0 < row["reused"] < 1 for row in found["steps"])
    assert found["ratio"]["low"] > 0 and "| 3 |" in reuse.table(found)


def test_prompts_have_their_length_and_begin_apart(tokenizer):
    shape = rollout.Shape(prompts=4, prompt_tokens=50)
    prompts = rollout.prompts_of(shape, tokenizer, seed=3)
    assert [len(prompt) for prompt in prompts] == [50] * 4
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 4
    assert prompts == rollout.prompts_of(shape, tokenizer, seed=3) != rollout.prompts_of(shape, tokenizer, seed=4)


def test_a_peer_without_its_environment_is_one_sentence():
    with pytest.raises(UserError, match="run `make bench-peers`, or leave the peer out with --peers"):
        Peer("vllm_cpu.py", ".venv-nowhere").python()


def test_the_limit_grows_with_rows(llama):
    one, many = (decoding_limit(llama, rows, torch.float32, seconds=0.05) for rows in (1, 64))
    assert many > 2 * one > 0
