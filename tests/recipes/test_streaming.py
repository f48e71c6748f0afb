"""An answer is written while it is sampled, and ends as it would have been printed."""

import pytest

from etude.cli import main
from etude.decoding.methods import METHODS
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.sampling import Sampling
from etude.recipes.generate import GenerateSettings, generate

QUESTION = "repeat c after 1234: c"


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_what_is_written_is_the_answer(method):
    how = ReliableDecoding(method, k=2, sampling=Sampling(temperature=1.0), min_confidence=0.0)
    settings = GenerateSettings(max_new_tokens=6, decoding=how, machine=Machine(dtype="float32"))
    if method == "integrative_unrelated":
        return  # asks two questions, of which nothing is streamed
    pieces = []
    (row,) = generate("tiny-random", [QUESTION], settings, write=pieces.append)
    assert "".join(pieces) == row["completions"][0]
    is_drawn = method.startswith(("none", "integrative", "layer_contrast", "self_reflection"))
    assert len(pieces) > 1 or not is_drawn


def test_of_several_prompts_nothing_is_streamed(model):
    pieces = []
    generate(model, [QUESTION, QUESTION], GenerateSettings(max_new_tokens=3), write=pieces.append)
    assert pieces == []


@pytest.mark.parametrize("more", [[], ["--method", "integrative", "--k", "2"], ["--search", "refine"]])
def test_a_terminal_shows_the_answer_once(model, capsys, monkeypatch, more):
    given = ["generate", model, "--prompt", QUESTION, "--max_new_tokens", "6", *more]
    assert main(given) == 0
    plain = capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(given) == 0
    assert capsys.readouterr().out == plain
