"""The suite of what a model knew and could do before."""

import json

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.suites.retention import RETENTION, RetentionSuite

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
