"""The suite of long texts, as a command."""

import json

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.recipes.long_suite import LongSuite, evaluate_long

SMALL = {"kinds": ["single"], "tokens": [240], "n": 3, "max_new_tokens": 6, "machine.precision": "float32"}


@pytest.mark.parametrize("question", ["seen", "unseen"])
@pytest.mark.parametrize("view", ["snapkv", "kvzip", "arkvale"])
def test_a_view_that_keeps_all_finds_what_the_full_context_finds(view, question):
    how = SMALL | {"question": question, "engine.view": view}
    found = evaluate_long("tiny-random", "long", how | {"engine.keep_ratio": 1.0})
    assert [item["view_text"] for item in found["items"]] == [item["full_text"] for item in found["items"]]
    small = evaluate_long("tiny-random", "long", how | {"engine.keep_ratio": 0.15})
    assert [item["full_text"] for item in small["items"]] == [item["full_text"] for item in found["items"]]
    assert [item["view_text"] for item in small["items"]] != [item["full_text"] for item in found["items"]]
    assert small["view"] == f"{view} 0.15"
    if view != "arkvale":
        assert small["rows"][0]["held"] == pytest.approx(0.15, abs=0.01)


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    assert main(["evaluate", "tiny-random", "--suite", "long", "--kinds", "single", "--tokens", "240", "--n", "2", "--max_new_tokens", "4",
                 "--engine.view", "streaming", "--engine.budget_tokens", "20", "--json", str(tmp_path / "found.json")]) == 0  # fmt: skip
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    said = capsys.readouterr().out
    assert "streaming 20 tokens" in said and f"full {row['full']:.1%}" in said and "n = 2" in said


def test_wrong_suites_are_said_in_a_sentence():
    for changes, message in (
        ({"kinds": ["singel"]}, "unknown kind 'singel': did you mean 'single'"),
        ({"kinds": ["facts"]}, "made from a file: set facts"),
        ({"kinds": []}, "there is nothing to ask"),
        ({"n": 1}, "n must be at least 2"),
    ):
        with pytest.raises(UserError, match=message):
            LongSuite(**changes)
    with pytest.raises(UserError, match="more than the model's 256 positions"):
        evaluate_long("tiny-random", "long", SMALL | {"tokens": [1000]})
