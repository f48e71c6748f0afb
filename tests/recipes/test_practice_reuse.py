"""Practice over several epochs with attempts of the last one as drafts."""

import gzip
import json

import pytest

from etude.console.reporter import Silent
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.recipes.exploring import Exploring
from etude.recipes.practice import Practice
from etude.training.run_folder import read_jsonl

REUSE = {"explore.reuse": True, "n": 15, "steps": 8}
"""Two and a half steps are an epoch: some steps run over its end."""
SAME = ("metrics.jsonl", "result.json", "model/model.safetensors")


class Killed(Exception):
    pass


def attempts_of(folder):
    return {path.name: gzip.decompress(path.read_bytes()) for path in (folder / "attempts").iterdir()}


@pytest.fixture(scope="module")
def reused(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reuse") / "run"
    small(folder, REUSE)
    return folder


def test_the_first_epoch_reuses_nothing_and_later_ones_a_part(reused):
    shares = [row["reused"] for row in read_jsonl(reused / "metrics.jsonl") if row["phase"] == "practice"]
    assert shares[:2] == [0, 0] and all(0 < share <= 1 for share in shares[3:])


def test_a_killed_run_with_reuse_resumes_to_the_same_bytes(small, reused, tmp_path, monkeypatch):
    real = Exploring.attempts_of

    def killed(self, step, *rest):
        if step == 8:  # behind the checkpoint of step 6, the attempts of step 7 judged and kept
            raise Killed
        return real(self, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Exploring, "attempts_of", killed)
        small(tmp_path / "run", REUSE)
    drafts, generate = [], TransformersEngine.generate

    def spy(engine, *given, **options):
        drafts.append(options.get("drafts"))
        return generate(engine, *given, **options)

    monkeypatch.setattr(TransformersEngine, "generate", spy)
    small(tmp_path / "run", REUSE, resume=True)
    assert [all(all(own) for own in found) for found in drafts if found] == [True]  # step 8 alone, every attempt with its draft
    assert all((tmp_path / "run" / name).read_bytes() == (reused / name).read_bytes() for name in SAME)
    assert attempts_of(tmp_path / "run") == attempts_of(reused)


def test_without_its_drafts_a_run_ends_the_same_up_to_rounding(small, reused, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.rollouts.reuse.Drafts.of", lambda drafts, tasks, visits, attempts: [[()] * len(attempts) for _ in tasks])
    small(tmp_path / "run", REUSE)
    for name, content in attempts_of(reused).items():
        rows, others = ([json.loads(line) for line in text.splitlines()] for text in (content, attempts_of(tmp_path / "run")[name]))
        assert [row["own_tokens"] for row in rows] == [row["own_tokens"] for row in others]
        assert [row["mean_logprob"] for row in rows] == pytest.approx([row["mean_logprob"] for row in others], abs=1e-3)


def test_without_reuse_nothing_of_it_is_written(finished):
    assert all("reused" not in row for row in read_jsonl(finished / "metrics.jsonl"))
    assert all(b"own_tokens" not in content for content in attempts_of(finished).values())


def test_reuse_without_a_second_epoch_is_said_to_have_no_effect(small, tmp_path):
    said = []

    class Listening(Silent):
        def say(self, text):
            said.append(text)

    small(tmp_path / "run", {"explore.reuse": True, "steps": 1}, reporter=Listening())
    assert any("explore.reuse has no effect: 1 steps of 6 tasks come to none of the 60 tasks twice" in line for line in said)


def test_damaged_attempts_are_named_with_the_way_out(small, tmp_path, monkeypatch):
    real = Practice.learn

    def killed(self, step, *rest):
        if step == 4:
            raise Killed
        return real(self, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Practice, "learn", killed)
        small(tmp_path / "run", REUSE)
    path = tmp_path / "run" / "attempts" / "00001.jsonl.gz"
    path.write_bytes(b"not gzip")
    with pytest.raises(UserError, match=r"00001\.jsonl\.gz is damaged .*remove it and resume, which goes on without these attempts"):
        small(tmp_path / "run", REUSE, resume=True)
    path.unlink()
    small(tmp_path / "run", REUSE, resume=True)
