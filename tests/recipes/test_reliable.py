"""Answers that are made of several, from the commands and from Python."""

import json
import logging
from dataclasses import replace

import pytest

from etude.cli import main
from etude.decoding.methods import METHODS
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.decoding import DecodingBatch
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.evaluation.report.answers_page import write_answers_page
from etude.recipes.evaluate import evaluate
from etude.recipes.generate import GenerateSettings, _pieces, generate

QUESTIONS = ["repeat c after 1234: c", "repeat b after 99: b"]
EVALUATED = {"recipe": "tiny", "evaluation.n": 20, "evaluation.pass_n": 5, "evaluation.num_samples": 3, "machine.dtype": "float32"}


@pytest.fixture(scope="module")
def plain(finished):
    """What is measured without a method."""
    return evaluate(str(finished / "model"), EVALUATED)["evaluation"][0]


def generated(model, method, questions=QUESTIONS, **options):
    decoding = ReliableDecoding(method, k=2, sampling=Sampling(temperature=1.0))
    return generate(model, questions, GenerateSettings(max_new_tokens=6, decoding=decoding, machine=Machine(dtype="float32"), **options))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_returns_one_answer_with_its_samples(model, method):
    rows = generated(model, method)
    assert rows == generated(model, method)
    for row in rows:
        if method == "abstain" and not row["completions"]:
            continue
        assert len(row["completions"]) == len(row["finish"]) == 1
        facts = row["decoding"]
        assert facts["sampled_tokens"] >= len(facts["tokens"]) > 0
        assert "".join(facts["tokens"]) == row["completions"][0]
        is_joint = method.startswith("integrative")
        assert bool(facts["samples"]) == ("sampling" in METHODS[method].reads)
        assert len(facts["agreement"]) == (len(facts["tokens"]) if is_joint else 0)
        assert all(0 <= share <= 1 for share in facts["agreement"])


@pytest.mark.parametrize("method", ["majority", "integrative", "integrative_original"])
def test_an_evaluation_reports_a_methods_gain_over_greedy_and_its_cost(model, plain, method):
    found = evaluate(model, EVALUATED | {"decoding.method": method, "decoding.k": 3})
    row, items = found["evaluation"][0], found["items"]["tiny"]
    assert {name: row[name] for name in plain} == plain
    right = [item["decoding"]["score"] == 1.0 for item in items]
    assert row["decoding_accuracy"] == sum(right) / 20 and row["decoding_accuracy_low"] <= row["decoding_accuracy"]
    assert row["decoding_gain"] == pytest.approx(row["decoding_accuracy"] - row["accuracy"])
    assert row["decoding_gain_low"] <= row["decoding_gain"] <= row["decoding_gain_high"]
    assert row["decoding_tokens"] > row["mean_tokens"] * (3 if method == "majority" else 1) * 0.5
    assert row["decoding_not_given"] == 0
    assert ("decoding_ece" in row) == ("decoding_aurc" in row) == (method == "majority")


@pytest.mark.parametrize("method", ["none", "majority"])
def test_finished_rows_are_reported_in_order(model, method, monkeypatch):
    questions = [f"repeat {letter * size}: {letter}" for letter, size in zip("abcdef", (30, 1, 40, 2, 20, 3), strict=True)]
    told, before = [], []

    def run(decoding, *given, real=DecodingBatch.run, **named):
        before.append(len(told))
        return real(decoding, *given, **named)

    monkeypatch.setattr(DecodingBatch, "run", run)
    monkeypatch.setattr("etude.recipes.generate.engine_at", lambda place, *given: TransformersEngine(*given[:2], batch_tokens=60))
    decoding = ReliableDecoding(method, k=2, sampling=Sampling(temperature=1.0))
    settings = GenerateSettings(max_new_tokens=6, decoding=decoding, machine=Machine(dtype="float32"))
    rows = generate(model, questions, settings, done=told.append)
    assert told == rows and [row["prompt"] for row in rows] == questions
    assert before[0] == 0 < before[-1] < len(questions)


def test_a_judge_on_a_server_compares_answers(model, judge_server, capsys):
    server = judge_server(lambda body: "Better: first")
    given = {
        "decoding.method": "majority",
        "decoding.k": 2,
        "decoding.sampling.temperature": 2.0,
        "judge.model": "x",
        "judge.url": server.url,
    }
    found = evaluate(model, EVALUATED | given)
    row, items = found["evaluation"][0], found["items"]["tiny"]
    differ = sum(item["text"].strip() != item["decoding"]["text"].strip() for item in items)
    assert differ and len(server.prompts) == 2 * differ
    assert (row["decoding_preferred"], row["decoding_preferred_n"], row["decoding_preferred_order"]) == (0.5, 20, 1.0)
    options = [word for name, value in (EVALUATED | given).items() for word in (f"--{name}", str(value))]
    assert main(["evaluate", model, *options]) == 0
    assert ", preferred by the judge in 50.0% [50.0%, 50.0%] of 20, 100.0% decided by the order alone" in capsys.readouterr().out


def test_one_wording_without_samples_is_the_greedy_answer_whose_words_are_counted(model, plain):
    found = evaluate(model, EVALUATED | {"decoding.method": "integrative_original", "decoding.k": 1})
    row, items = found["evaluation"][0], found["items"]["tiny"]
    assert all(item["decoding"]["text"] == item["text"] for item in items) and row["decoding_gain"] == 0
    assert row["decoding_greedy_words"] == row["decoding_words"] == sum(len(item["text"].split()) for item in items) / 20
    assert not any("words" in name for name in plain)


def test_answers_that_are_withheld_are_counted_and_are_not_right(model):
    given = {"decoding.method": "abstain", "decoding.k": 2, "decoding.min_confidence": 1.0, "decoding.sampling.temperature": 1.0}
    found = evaluate(model, EVALUATED | given)
    row, items = found["evaluation"][0], [item["decoding"] for item in found["items"]["tiny"]]
    withheld = [item for item in items if item["text"] is None]
    assert 0 < len(withheld) == row["decoding_not_given"] * 20 and all(item["score"] == 0.0 for item in withheld)
    assert all(item["confidence"] == 1.0 for item in items if item["text"] is not None)
    assert row["decoding_ece"] == pytest.approx(1 - sum(item["score"] for item in items) / (20 - len(withheld)))


def test_the_commands_take_a_method_by_its_name(model, capsys, tmp_path):
    given = ["--method", "integrative", "--k", "3", "--max_new_tokens", "4", "--json", str(tmp_path / "found.json")]
    assert main(["generate", model, "--prompt", QUESTIONS[0], *given]) == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())
    assert len(row["decoding"]["samples"]) == 3
    given = ["--recipe", "tiny", "--evaluation.n", "10", "--evaluation.pass_n", "0", "--method", "majority", "--k", "2"]
    assert main(["evaluate", model, *given]) == 0
    said = capsys.readouterr().out
    assert "; by decoding " in said and "points [" in said


def test_a_page_shows_samples_and_agreement_and_escapes_what_was_written(tmp_path):
    facts = {"samples": ["<b>four</b>", ""], "tokens": ["<i>", "4", "."], "sampled_tokens": 9, "confidence": 0.5, "notes": []}
    rows = [
        {"prompt": "2 < 3?", "completions": ["<i>4."], "finish": ["stop"], "decoding": facts | {"agreement": [1.0, 0.5, 0.0]}},
        {"prompt": "none?", "completions": [], "finish": [], "decoding": facts | {"agreement": [], "notes": ["too long"]}},
        {"prompt": "plain?", "completions": ["five"], "finish": ["stop"], "decoding": facts | {"agreement": [], "samples": []}},
    ]
    text = write_answers_page(rows, "integrative", "toy", tmp_path / "new" / "page.html").read_text()
    assert '<span class="token a10" title="100 %">&lt;i&gt;</span><span class="token a5" title="50 %">4</span>' in text
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;four&lt;/b&gt;" in text and "<li>(nothing)</li>" in text
    assert "2 &lt; 3?" in text and "none: too long" in text and ">five<" in text and "<script" not in text
    assert "agreement of the inputs 50 %, confidence 0.50" in text


def test_the_command_writes_the_page(model, tmp_path, capsys):
    given = ["--prompt", QUESTIONS[0], "--max_new_tokens", "4", "--page", str(tmp_path / "page.html")]
    assert main(["generate", model, *given, "--method", "integrative", "--k", "2"]) == 0
    assert "2 samples; " in (tmp_path / "page.html").read_text()
    assert main(["generate", model, *given]) == 2
    assert "--page shows the answers of a decoding method: choose a --method" in capsys.readouterr().err
    assert main(["generate", model, *given[:-1], str(tmp_path), "--method", "majority"]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err


def test_a_character_of_several_tokens_is_with_its_last(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    ids = tokenizer("aé本!", add_special_tokens=False)["input_ids"]
    assert _pieces(engine, ids, "aé本!") == ["a", "", "é", "", "", "本", "!"]
    assert "".join(_pieces(engine, ids[:-2], text := engine.text_of(ids[:-2]))) == text
    assert _pieces(engine, ids, "aé") == ["a", "", "é", ""]  # what a stop string cut off


def test_tokens_and_agreement_end_where_a_stop_string_cut_the_answer():
    how = {"decoding": ReliableDecoding("integrative", k=2, sampling=Sampling(temperature=1.0)), "machine": Machine(dtype="float32")}
    (plain,) = generate("tiny-random", QUESTIONS[:1], GenerateSettings(max_new_tokens=16, **how))
    text = plain["completions"][0]
    stop = next(each for place, each in enumerate(text) if place > 2 and each != "\ufffd" and text.index(each) == place)
    (row,) = generate("tiny-random", QUESTIONS[:1], GenerateSettings(max_new_tokens=16, stop=[stop], **how))
    facts = row["decoding"]
    assert "".join(facts["tokens"]) == row["completions"][0] == text[: text.index(stop)]
    assert len(facts["agreement"]) == len(facts["tokens"]) < len(plain["decoding"]["tokens"])


def test_a_question_without_an_answer_is_said_and_its_row_is_empty(model, caplog, monkeypatch):
    monkeypatch.setattr("etude.decoding.joint_inputs.render_feedback", lambda tokenizer, words: tuple([5] * 5000))
    with caplog.at_level(logging.WARNING):
        rows = generated(model, "integrative")
    assert [(row["completions"], row["finish"]) for row in rows] == [([], []), ([], [])]
    assert rows[0]["decoding"]["notes"] and "no answer to 'repeat c after 1234: c': no sample" in caplog.text


def test_a_setting_that_the_method_does_not_read_is_named(model, caplog):
    with caplog.at_level(logging.WARNING):
        settings = GenerateSettings(decoding=ReliableDecoding("majority", again="Again."), machine=Machine(dtype="float32"))
        generate(model, QUESTIONS[:1], settings)
        generate(model, QUESTIONS[:1], replace(settings, sampling=Sampling(temperature=2.0)))
    assert "unused settings: decoding.again: decoding.method is majority" in caplog.text
    assert "unused settings: sampling.temperature: decoding.method majority chooses a sample (decoding.sampling)" in caplog.text
