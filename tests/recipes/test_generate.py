import io
import json
from pathlib import Path

import pytest

from etude.cli import main
from etude.decoding.search_settings import AnswerSearch
from etude.decoding.settings import ReliableDecoding
from etude.device.machine import Machine
from etude.engine.sampling import Sampling
from etude.errors import UserError
from etude.recipes.generate import GenerateSettings, generate
from etude.recipes.generate_settings import prompts_from
from etude.rollouts.thought import Thought

QUESTION = "repeat c after 1234: c"
HOT = Sampling(temperature=2.0)
DECODED = ReliableDecoding("integrative")


def test_a_prompt_is_answered_on_standard_output(model, capsys):
    assert main(["generate", model, "--prompt", QUESTION, "--max_new_tokens", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert text.rstrip("\n") == generate(model, [QUESTION], GenerateSettings(max_new_tokens=2))[0]["completions"][0]


@pytest.mark.parametrize(
    ("name", "content"), [("ask.txt", f"{QUESTION}\n\nmore\n"), ("ask.jsonl", f'{{"question": "{QUESTION}"}}\n{{"prompt": "more"}}\n')]
)
def test_a_file_gives_a_line_of_json_for_each_prompt(model, tmp_path, capsys, name, content):
    (tmp_path / name).write_text(content)
    assert main(["generate", model, "--file", str(tmp_path / name), "--max_new_tokens", "2", "--json", str(tmp_path / "out.json")]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == [QUESTION, "more"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [row["completions"][0] for row in written] == [row["completion"] for row in rows]


def test_standard_input_is_read_where_nothing_else_is_named(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\nmore\n"))
    assert main(["generate", model, "--max_new_tokens", "2"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_stop_string_ends_an_answer():
    how = {"max_new_tokens": 6, "machine": Machine(dtype="float32")}
    whole = generate("tiny-random", [QUESTION], GenerateSettings(**how))[0]
    assert whole["finish"] == ["length"]
    stop = whole["completions"][0][3]
    before = whole["completions"][0].index(stop)
    cut = generate("tiny-random", [QUESTION], GenerateSettings(stop=[stop], **how))[0]
    assert cut["completions"] == [whole["completions"][0][:before]] and cut["finish"] == ["stop"]


def test_several_stop_strings_on_the_command_line(model, capsys):
    assert main(["generate", model, "--prompt", QUESTION, "--stop", "a", "b", "c", "d", "--max_new_tokens", "3"]) == 0
    assert not set("abcd") & set(capsys.readouterr().out)


def test_samples_differ_by_seed_and_repeat_with_it(model):
    def sampled(seed):
        hot = GenerateSettings(num_samples=8, seed=seed, max_new_tokens=4, sampling=HOT)
        return generate(model, [QUESTION], hot)[0]["completions"]

    assert sampled(0) == sampled(0) != sampled(1)
    assert len(set(sampled(0))) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 3}, "at temperature 0 all answers are equal"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"max_new_tokens": -5}, "max_new_tokens must be at least 1, got -5"),
        ({"search": AnswerSearch("samples"), "sampling": HOT}, "set num_samples to 2 or more"),
        ({"search": AnswerSearch("mcts")}, "at temperature 0 all are equal: set sampling.temperature above 0"),
        (
            {"search": AnswerSearch("refine"), "sampling": HOT, "num_samples": 3},
            "search.method refine and num_samples 3 exclude each other",
        ),
        ({"search": AnswerSearch("refine"), "stop": ["x"]}, "stop and search.method refine exclude each other"),
        ({"search": AnswerSearch("beam"), "sampling": HOT, "stop": ["x"]}, "stop and search.method beam exclude each other"),
        (
            {"decoding": DECODED, "search": AnswerSearch("refine")},
            "integrative and search.method refine exclude each other",
        ),
        ({"decoding": DECODED, "num_samples": 2, "sampling": HOT}, "decoding.method integrative and num_samples 2 exclude each other"),
        ({"decoding": DECODED, "thought": Thought(budget_tokens=5)}, "integrative and thought.budget_tokens exclude each other"),
        ({"thought": Thought(budget_tokens=5), "stop": ["x"]}, "thought.budget_tokens and stop exclude each other"),
        (
            {"thought": Thought(budget_tokens=5), "search": AnswerSearch("beam"), "sampling": HOT},
            "thought.budget_tokens and search.method beam exclude each other",
        ),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        GenerateSettings(**settings)


def test_prompts_that_can_not_be_read(tmp_path: Path, model):
    (tmp_path / "ask.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    for settings, message in (
        (GenerateSettings(prompt="a", file="b"), "exclude each other"),
        (GenerateSettings(file=str(tmp_path / "no.txt")), "no such file"),
        (GenerateSettings(file=str(tmp_path / "ask.jsonl")), r"ask\.jsonl:2: expected a JSON object with `prompt` or `question`"),
    ):
        with pytest.raises(UserError, match=message):
            prompts_from(settings, io.StringIO())
    raw = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf8")
    with pytest.raises(UserError, match="standard input: not UTF-8 text"):
        prompts_from(GenerateSettings(), raw)
    with pytest.raises(UserError, match="there is no prompt"):
        generate(model, prompts_from(GenerateSettings(), io.StringIO("\n")))


def test_a_line_separator_inside_a_prompt_does_not_end_its_line(tmp_path):
    (tmp_path / "ask.jsonl").write_text('{"prompt": "a\u2028b"}\n{"prompt": "c"}\r\n', encoding="utf8")
    assert prompts_from(GenerateSettings(file=str(tmp_path / "ask.jsonl")), io.StringIO()) == ["a\u2028b", "c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("a.txt", b"caf\xe9\n", "not UTF-8 text"), ("a.jsonl", b'{"prompt": ' + b"[" * 50_000, "a.jsonl:1: not JSON")],
)
def test_a_file_that_is_no_text_is_one_sentence(model, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert main(["generate", model, "--file", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a\udcff", "is not valid Unicode: surrogates not allowed at character 1"),
        ("x" * 2_000_001, "has 2,000,001 characters, the most is 2,000,000: cut it"),
    ],
)
def test_a_prompt_that_no_tokenizer_takes_is_named_before_a_model_is_loaded(tmp_path, prompt, message):
    with pytest.raises(UserError, match=rf"^--prompt {message}$"):
        prompts_from(GenerateSettings(prompt=prompt), io.StringIO())
    with pytest.raises(UserError, match=rf"^standard input:2: the prompt {message}$"):
        prompts_from(GenerateSettings(), io.StringIO(f"fine\n{prompt}\n"))
    (tmp_path / "ask.jsonl").write_text(json.dumps({"prompt": prompt}) + "\n")
    with pytest.raises(UserError, match=rf"ask\.jsonl:1: the prompt {message}$"):
        prompts_from(GenerateSettings(file=str(tmp_path / "ask.jsonl")), io.StringIO())
