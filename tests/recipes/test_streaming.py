"""An answer is written while it is drawn, and ends as it would have been printed."""

import pytest

from etude.cli import main
from etude.decoding.methods import METHODS
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.recipes.generate import GenerateSettings, generate
from etude.recipes.streaming import AnswerStream

QUESTION = "repeat c after 1234: c"


@pytest.fixture
def model(finished):
    return str(finished / "model")


def test_only_whole_characters_are_written_and_no_beginning_of_a_stop_string(llama, tokenizer):
    engine, pieces = TransformersEngine(llama, tokenizer), []
    streamed = AnswerStream(engine.text_of, pieces.append, ["END"])
    for token in tokenizer("aé本E N END b", add_special_tokens=False)["input_ids"]:
        streamed.hear(token)
    assert pieces == ["a", "é", "本", "E ", "N", " "]
    streamed.end("aé本E N ")
    assert "".join(pieces) == streamed.written == "aé本E N "


def test_an_answer_that_was_chosen_is_written_whole_and_another_one_on_a_line_of_its_own():
    pieces = []
    AnswerStream(str, pieces.append).end("four")
    assert pieces == ["four"]
    streamed = AnswerStream(lambda tokens: "five"[: len(tokens)], pieces.append)
    streamed.hear(0)
    streamed.end("four")
    assert pieces == ["four", "f", "our"]
    changed = AnswerStream(lambda tokens: "x", pieces.append)
    changed.hear(0)
    changed.end("four")
    assert pieces[3:] == ["x", "\n", "four"]


@pytest.mark.parametrize("family", ["llama", "qwen3", "mamba"])
def test_every_token_is_heard_with_its_prompt_and_sample(model_of, tokenizer, family):
    engine, heard = TransformersEngine(model_of(family), tokenizer), {}
    prompts = [[9, 10, 11], [20, 21], [30]]
    how = {"num_samples": 2, "max_new_tokens": 7, "sampling": Sampling()}
    found = engine.generate(prompts, **how, heard=lambda i, sample, token: heard.setdefault((i, sample), []).append(token))
    assert heard == {(i, sample): list(each.tokens) for i, own in enumerate(found) for sample, each in enumerate(own)}
    first, second = engine.open(prompts[:2])
    told: list[tuple[int, int]] = []
    joint = engine.extend_joint([[first, second], [second]], 6, sampling=Sampling(), keys=[1, 2], heard=lambda *each: told.append(each))
    assert [[token for place, token in told if place == group] for group in range(2)] == [list(each.completion.tokens) for each in joint]


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_what_is_written_is_the_answer(method):
    how = ReliableDecoding(method, k=2, sampling=Sampling(temperature=1.0), min_confidence=0.0)
    settings = GenerateSettings(max_new_tokens=6, decoding=how, machine=Machine(precision="float32"))
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
