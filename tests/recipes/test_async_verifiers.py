"""Groups are judged while others are sampled: the same run, sooner."""

import os
import signal
import threading

import pytest
from run_outputs import SAME, assert_same

from etude.cli import main
from etude.errors import UserError
from etude.files import read_jsonl
from etude.rewards.verifier_reward import VerifierReward
from etude.rollouts.independent import AsyncJudge
from etude.training.ledger import Ledger

EACH = {"machine.kv_cache_tokens": 1, "steps": 2, "warm_start.steps": 5}
"""Every group is sampled for itself, so that the first is there long before the last."""


def test_the_first_group_is_judged_before_the_last_is_sampled(small, tmp_path, monkeypatch):
    is_judged, handed, waits = threading.Event(), [], []
    judge, hand = VerifierReward.judge, AsyncJudge.__call__

    def judged(reward, pairs):
        found = judge(reward, pairs)
        if threading.current_thread() is not threading.main_thread():
            is_judged.set()
        return found

    def handed_over(meanwhile, place, group):
        handed.append(place)
        if len(handed) == 6:  # the last: it comes late enough only if judging goes on without it
            waits.append(is_judged.wait(20))
        hand(meanwhile, place, group)

    monkeypatch.setattr(VerifierReward, "judge", judged)
    monkeypatch.setattr(AsyncJudge, "__call__", handed_over)
    small(tmp_path / "run", EACH | {"steps": 1})
    assert sorted(handed) == list(range(6)) and waits == [True]


def test_the_run_is_the_one_that_judges_afterwards(small, tmp_path, monkeypatch):
    kept, write = {}, Ledger.write

    def spy(ledger, batch):
        kept.setdefault(ledger.folder.parent.name, []).append((batch.groups, batch.rewards, dict(batch.metrics)))
        write(ledger, batch)

    monkeypatch.setattr(Ledger, "write", spy)
    small(tmp_path / "meanwhile", EACH)
    small(tmp_path / "afterwards", EACH | {"async_verifiers": False})
    assert kept["meanwhile"] == kept["afterwards"] and len(kept["afterwards"]) == 2
    assert_same(tmp_path / "meanwhile", tmp_path / "afterwards", ("metrics.jsonl", "model/model.safetensors"))


VERIFIER = """
import time
def judge(text, task):
    if open(r"{mood}").read() == "hang": time.sleep(600)
    if text.startswith("a"): raise KeyError("oh")
    return text == task.answer
"""


@pytest.fixture
def moody(tmp_path):
    """Overrides with a verifier that hangs where the file says so."""
    mood = tmp_path / "mood"
    mood.write_text("well")
    (tmp_path / "mine.py").write_text(VERIFIER.format(mood=mood))
    return mood, EACH | {"tasks.verifier": f"{tmp_path / 'mine.py'}:judge", "timeout_seconds": 300}


def test_a_run_that_is_asked_to_end_while_a_verifier_hangs_ends_and_resumes_to_the_same_bytes(
    small, small_arguments, tmp_path, moody, monkeypatch, capsys
):
    mood, overrides = moody
    small(tmp_path / "whole", overrides)
    hand, handed = AsyncJudge.__call__, []

    def hand_and_hang(meanwhile, place, group):
        handed.append(place)
        if len(handed) == 8:  # within the second step
            mood.write_text("hang")
        hand(meanwhile, place, group)
        if len(handed) == 10:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(AsyncJudge, "__call__", hand_and_hang)
        options = dict(zip(small_arguments[2::2], small_arguments[3::2], strict=True)) | {
            f"--{key}": str(value) for key, value in overrides.items()
        }
        assert main(["practice", "tiny", *(word for pair in options.items() for word in pair), "--run", str(tmp_path / "run")]) == 143
    assert "stopped by SIGTERM after practice step 1 of 2; go on with --resume" in capsys.readouterr().err
    mood.write_text("well")
    small(tmp_path / "run", overrides, resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole", SAME[:3])


def test_what_judging_raises_ends_the_run(small, tmp_path, monkeypatch):
    def refuse(reward, pairs):
        if threading.current_thread() is threading.main_thread():
            return judge(reward, pairs)
        raise UserError("the verifier is not to be had")

    judge = VerifierReward.judge
    monkeypatch.setattr(VerifierReward, "judge", refuse)
    with pytest.raises(UserError, match="not to be had"):
        small(tmp_path / "run", EACH)
    assert not list((tmp_path / "run" / "ledger").glob("*"))


def test_random_scores_are_drawn_in_the_plain_order(small, tmp_path):
    control = EACH | {"reward": "random"}
    small(tmp_path / "meanwhile", control)
    small(tmp_path / "afterwards", control | {"async_verifiers": False, "machine.kv_cache_tokens": 16384})
    one, other = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("meanwhile", "afterwards"))
    assert [row.get("score") for row in one] == [row.get("score") for row in other]
