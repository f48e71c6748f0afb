"""The suite of what a model knew and could do before."""

import json
from types import SimpleNamespace

import pytest
import torch

from etude.cli import main
from etude.errors import UserError
from etude.evaluation.kept import Answered
from etude.models.load import load_model
from etude.models.save import save_model
from etude.suites.general_knowledge import ALL, SHIPPED
from etude.suites.retention import RETENTION, RetentionSuite
from etude.suites.retention_changes import CHAT, check_same_tokens, kept_rows
from etude.suites.retention_parts import Items, shipped_rows
from etude.tasks.aliases import find_alias
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS

SMALL = {"instructions": 11, "families": ["gcd"], "family_n": 3, "max_new_tokens": 4, "text_tokens": 300, "machine.dtype": "float32"}


@pytest.fixture
def sets(tmp_path):
    """A data folder with two files of questions and two texts."""
    for name, number in (("birds", 4), ("stones", 6)):
        rows = [{"q": f"Which of the {name} is {i}?", "options": ["a wren", "flint"], "a": i % 2} for i in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tale.md").write_text("Once upon a time there was a wren. " * 20)
    (tmp_path / "book.jsonl").write_text("".join(json.dumps({"title": "x", "text": f"Flint is a stone. {i}"}) + "\n" for i in range(30)))
    return tmp_path


OWN = {
    "choices": ["birds.jsonl", "stones.jsonl"],
    "columns": {"question": "q", "choices": "options", "answer": "a"},
    "text": ["tale.md", "book.jsonl"],
    "n": 3,
}


def test_every_part_has_rows_with_intervals_and_all_questions_come_together(sets, tmp_path):
    found = RETENTION.evaluate("tiny-random", "retention", SMALL | OWN, data=sets)
    parts = [(row["part"], row["name"], row["n"]) for row in found["rows"]]
    assert parts[:4] == [
        ("choices", "common knowledge", 80),
        ("choices", "birds.jsonl", 3),
        ("choices", "stones.jsonl", 3),
        ("choices", "all questions", 6),
    ]
    assert [(part, name) for part, name, _ in parts[4:]] == [
        ("text", "common knowledge"),
        ("text", "tale.md"),
        ("text", "book.jsonl"),
        ("instructions", "own prompts, rules checked"),
        ("families", "gcd"),
    ]
    assert all(row["low"] <= row["value"] <= row["high"] for row in found["rows"])
    assert found["choice_accuracy"] == found["rows"][3] and found["left_out"] is None
    assert len(found["answers"]["instructions"]) == 11 and len(found["answers"]["gcd"]) == 3
    json.dumps(found)
    with pytest.raises(UserError, match=r"path 'birds\.jsonl' is not a file"):
        RETENTION.evaluate("tiny-random", "retention", SMALL | OWN, data=tmp_path.parent)


def test_without_data_what_ships_is_measured_and_the_rest_is_named(tmp_path, capsys):
    words = [word for name, value in SMALL.items() for word in (f"--{name}", json.dumps(value) if isinstance(value, list) else str(value))]
    assert main(["evaluate", "tiny-random", "--suite", "retention", *words, "--json", str(tmp_path / "out.json")]) == 0
    found = json.loads((tmp_path / "out.json").read_text())
    said = capsys.readouterr().out
    assert said.startswith("without --data DIR, the folder of data sets, these were left out: science_mcq/ARC-Easy.test.jsonl, ")
    assert found["choice_accuracy"]["n"] == 80 and "all questions " in said
    assert [row["part"] for row in found["rows"]] == ["choices", "choices", "text", "instructions", "families"]


def test_a_suite_is_found_by_name_or_file_and_its_settings_are_checked(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("command: suite\nfamilies: [gcd]\nfamily_parameters:\n  gcd: {max_value: 9}\n")
    assert RETENTION.parse(str(mine), ["--family_n", "2"]) == RetentionSuite(
        families=["gcd"], family_parameters={"gcd": {"max_value": 9}}, family_n=2
    )
    with pytest.raises(UserError, match="did you mean 'retention'"):
        RETENTION.parse("retentoin", [])
    with pytest.raises(UserError, match="window_tokens must be at least 3, got 2"):
        RETENTION.parse("retention", ["--window_tokens", "2"])


AGAINST = SMALL | {"closed_book": 6, "closed_book_tokens": 4, "chat_prompts": 3, "chat_tokens": 8, "divergence_tokens": 300}


def test_against_itself_a_model_keeps_all_and_is_at_0(sets):
    found = RETENTION.evaluate("tiny-random", "retention", AGAINST | OWN | {"against": "tiny-random", "known_margin": 0.0}, data=sets)
    rows = {(row["part"], row["name"]): row for row in found["rows"]}
    assert rows["closed book", "own questions, names found"]["n"] == 6
    assert [rows["known", name]["value"] for name in (SHIPPED, ALL)] == [1.0, 1.0]
    moved = {name: row["value"] for (part, name), row in rows.items() if part == "divergence"}
    assert moved == dict.fromkeys((SHIPPED, "tale.md", "book.jsonl", CHAT), 0.0)
    assert all(row["value"] == 0.0 for (part, _), row in rows.items() if part == "newly right")
    assert all(row["value"] == 1.0 for (part, _), row in rows.items() if part in ("kept", "above chance"))
    alone = RETENTION.evaluate("tiny-random", "retention", SMALL | OWN, data=sets)
    begin = len(alone["rows"])
    assert found["rows"][:begin] == alone["rows"] and "against" not in alone
    own = [row for row in found["rows"][: begin + 1] if row["part"] != "text"]
    assert found["against"]["rows"] == own and found["against"]["answers"] == found["answers"]
    json.dumps(found, allow_nan=False)


def test_a_model_that_moved_is_further_from_its_start_than_0(tmp_path):
    model, tokenizer = load_model("tiny-random")
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    save_model(model, tokenizer, tmp_path / "moved")
    found = RETENTION.evaluate(str(tmp_path / "moved"), "retention", AGAINST | {"against": "tiny-random", "text": [], "choices": []})
    moved = [row for row in found["rows"] if row["part"] == "divergence"]
    assert [row["name"] for row in moved] == [SHIPPED, CHAT]
    assert all(0 < row["low"] <= row["value"] <= row["high"] for row in moved)


def test_rows_tell_what_is_left_of_what_the_start_knew_and_did():
    def items(margins, right):
        own = [Answered(margin, margin > 0, 0.25) for margin in margins]
        return Items({SHIPPED: own, ALL: own}, {"instructions": right})

    before = items([2.0, 2.0, 0.1, -2.0] * 20, [True, True, False])
    after = items([1.0, -1.0, -1.0, -2.0] * 20, [False, True, False])
    rounded = items([], [True, True, True])
    rows = {(row["part"], row["name"]): row for row in kept_rows(RetentionSuite(), before, after, rounded)}
    assert (rows["known", ALL]["n"], rows["known", ALL]["value"]) == (40, 0.5)
    assert rows["known", ALL]["sure_right"] == pytest.approx(2 / 3)  # of three in four that it is as sure of
    assert rows["above chance", ALL]["value"] == pytest.approx(0.0)  # 75 to 25 %
    assert (rows["kept", "instructions"]["n"], rows["kept", "instructions"]["value"]) == (2, 0.5)
    assert (rows["newly right", "instructions"]["n"], rows["newly right", "instructions"]["value"]) == (1, 0.0)
    assert (rows["floor", "instructions"]["n"], rows["floor", "instructions"]["value"]) == (2, 1.0)
    assert not any(row["part"] == "floor" for row in kept_rows(RetentionSuite(), before, after))


def test_models_of_different_tokenizers_are_refused(tokenizer):
    one, other = (SimpleNamespace(tokenizer=each) for each in (tokenizer, load_model("tiny-random")[1]))
    with pytest.raises(UserError, match="another tokenizer than this start"):
        check_same_tokens(one, other)


def test_settings_that_only_a_start_reads_are_named_without_one(capsys):
    words = ["--instructions", "0", "--families", "[]", "--text_tokens", "300", "--machine.dtype", "float32"]
    assert main(["evaluate", "tiny-random", "--suite", "retention", *words, "--known_margin", "2", "--chat_prompts", "1"]) == 0
    assert "unused settings: known_margin, chat_prompts: against names no model" in capsys.readouterr().out
    with pytest.raises(UserError, match="closed_book must be at least 0, got -1"):
        RETENTION.parse("retention", ["--closed_book", "-1"])


def test_the_shipped_questions_accept_their_answers_and_name_none():
    rows = shipped_rows("closed_book.jsonl", 120)
    assert len({row["question"] for row in rows}) == RetentionSuite().closed_book == 120
    for row in rows:
        task = Task(row["question"], row["answer"], "aliases")
        names = row["answer"].split("; ")
        assert all(VERIFIERS["aliases"](f"It is {name}.", task).score == 1.0 for name in names), row
        assert find_alias(row["question"], names) is None, row
    prompts = [row["prompt"] for row in shipped_rows("chat.jsonl", 40)]
    assert len(set(prompts)) == RetentionSuite().chat_prompts == 40
