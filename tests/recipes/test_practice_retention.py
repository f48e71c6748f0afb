"""Practice runs probe what the model knew before."""

import json
import math
from pathlib import Path

import pytest

from etude.errors import UserError


def test_a_run_tells_what_the_model_knew_before_and_after(small, tmp_path):
    Path(tmp_path / "own.txt").write_text("repeat after me: " * 20)
    rows = [{"question": f"Which comes after {a}?", "choices": list("abcd"), "answer": "b"} for a in "abc"]
    Path(tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = {"retention.text": [str(tmp_path / "own.txt")], "retention.choices": [str(tmp_path / "own.jsonl")]}
    result = small(tmp_path / "run", {"retention.probe": True, **own})
    assert [(row["model"], row["choices_n"], row["text_tokens"]) for row in result["retention"]] == [
        (model, 3, 5 * 63) for model in ("base", "warm_start", "practice")
    ]
    base, warm, practised = (row["perplexity"] for row in result["retention"])
    assert len({base, warm, practised}) == 3
    changes = {pair["second"]: pair["nats"] for pair in result["retention_paired"]}
    assert changes.keys() == {"warm_start", "practice"}
    assert abs(changes["practice"] - math.log(practised / base)) < 0.1  # means of windows and of tokens, nearly the same
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "own.txt").write_text("repeat after him: " * 20)
    with pytest.raises(UserError, match=r"base\.json is of other evaluation items than there are now"):
        small(tmp_path / "run", {"retention.probe": True, **own}, resume=True)
    with pytest.raises(UserError, match=r"retention\.text: 'none\.txt' is not a file in the current folder"):
        small(tmp_path / "other", {"retention.probe": True, "retention.text": ["none.txt"]})
    assert not (tmp_path / "other").exists()
