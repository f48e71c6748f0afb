"""The suite of long texts, as a command."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from etude.cli import main
from etude.errors import UserError
from etude.evaluation.report import kv_cache_page
from etude.evaluation.report.kv_cache_page import ShownTask
from etude.suites import long_context
from etude.suites.long_context import LONG_CONTEXT, LongSuite

SMALL = {"kinds": ["single"], "tokens": [240], "n": 3, "max_new_tokens": 6, "machine.dtype": "float32"}


@pytest.mark.parametrize("question", ["seen", "unseen"])
@pytest.mark.parametrize("view", ["snapkv", "kvzip", "arkvale"])
def test_a_view_that_keeps_all_finds_what_the_full_context_finds(view, question):
    how = SMALL | {"question": question, "kv_cache.policy": view}
    found = LONG_CONTEXT.evaluate("tiny-random", "long", how | {"kv_cache.keep_ratio": 1.0})
    assert [item["view_text"] for item in found["items"]] == [item["full_text"] for item in found["items"]]
    small = LONG_CONTEXT.evaluate("tiny-random", "long", how | {"kv_cache.keep_ratio": 0.15})
    assert [item["full_text"] for item in small["items"]] == [item["full_text"] for item in found["items"]]
    assert [item["view_text"] for item in small["items"]] != [item["full_text"] for item in found["items"]]
    assert small["view"] == f"{view} 0.15"
    if view != "arkvale":
        assert small["rows"][0]["held"] == pytest.approx(0.15, abs=0.01)


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    few = ["--kinds", "single", "--tokens", "240", "--n", "2", "--max_new_tokens", "4"]
    policy = ["--kv_cache.policy", "streaming", "--kv_cache.budget_tokens", "20"]
    assert main(["evaluate", "tiny-random", "--suite", "long", *few, *policy, "--json", str(tmp_path / "found.json")]) == 0
    (row,) = json.loads((tmp_path / "found.json").read_text())["rows"]
    said = capsys.readouterr().out
    assert "streaming 20 tokens" in said and f"full {row['full']:.1%}" in said and "n = 2" in said


@pytest.mark.parametrize("view", ["snapkv", "quest"])
def test_a_page_shows_what_is_kept_over_the_text_and_by_head(view, tmp_path):
    how = SMALL | {"tokens": [234, 240], "n": 2, "kv_cache.policy": view, "kv_cache.keep_ratio": 0.3}
    if view == "quest":
        how |= {"kv_cache.page_tokens": 8, "kv_cache.offload": "file", "kv_cache.prefetch_pages": 2}
    found = LONG_CONTEXT.evaluate("tiny-random", "long", how, page=tmp_path / "new" / "kept.html")
    assert found == json.loads(json.dumps(found)), "what the page is made of is no part of the result"
    text = (tmp_path / "new" / "kept.html").read_text()
    assert "<script" not in text and "<h1>" + view in text and text.count("data:image/png;base64,") == 2
    assert text.count("<polyline") == 4 and "tokens in the cache" in text
    assert ("read at a time" in text) == (view == "quest") and "magic number" in text
    for item in found["items"]:
        assert item["full_token_seconds"] > 0 and item["held"] == pytest.approx(item["view_tokens"] / item["full_tokens"])
    if view == "quest":
        assert all(0 < item["hit_rate"] < 1 and item["moved_bytes"] > 0 and item["expected_rate"] > 0 for item in found["items"])


def test_a_page_escapes_texts_and_bins_those_that_are_wider_than_a_picture(tmp_path):
    item = {"question": "<b>?", "answers": ["<i>"], "full": 1.0, "view": 0.0, "full_text": "<u>", "view_text": "<s>"}
    share = np.zeros((2, 3, 2500))
    share[:, :, :5], share[1, :, 5:8] = 1.0, 1.0
    shown = ShownTask("single", item, ["<a>"] * 2500, share)
    told = kv_cache_page._contents(shown)
    assert [piece["shade"] for piece in told["pieces"]] == [10, 5, 0] and told["pieces"][1]["text"] == "<a>" * 3
    assert told["by_layer"] == [pytest.approx(5 / 2500), pytest.approx(8 / 2500)]
    picture = imread(BytesIO(base64.b64decode(told["picture"])))
    assert picture.shape[:2] == (6, 834), "three tokens a column"
    assert picture[0, 0].tolist() != picture[0, 2].tolist() and picture[0, 2].tolist() == picture[0, 833].tolist()
    row = {"kind": "single", "tokens": 2500, "n": 1, "held": 0.1} | {f"gain{end}": 0.0 for end in ("", "_low", "_high")}
    row |= {f"{way}{part}": 0.5 for way in ("full", "view") for part in ("", "_token_seconds", "_tokens")}
    page = kv_cache_page.write_kv_cache_page({"model": "a/b", "view": "<x>", "rows": [row]}, [shown], tmp_path / "page.html", reads=False)
    text = page.read_text()
    assert not any(tag in text for tag in ("<b>?", "<i>", "<u>", "<s>", "<a>", "<x>")) and "&lt;a&gt;" in text and "<polyline" not in text


def test_a_page_needs_a_policy_and_the_suite_of_long_texts(tmp_path, capsys, monkeypatch):
    with pytest.raises(UserError, match="a page shows what a policy keeps: choose one"):
        LONG_CONTEXT.evaluate("tiny-random", "long", SMALL, page=tmp_path / "page.html")
    kept = {"kv_cache.policy": "snapkv", "kv_cache.keep_ratio": 0.5}
    with monkeypatch.context() as absent:
        absent.setattr(long_context, "find_spec", lambda name: None)
        with pytest.raises(UserError, match="a page needs matplotlib: pip install"):
            LONG_CONTEXT.evaluate("tiny-random", "long", SMALL | kept, page=tmp_path / "page.html")
    assert main(["evaluate", "tiny-random", "--suite", "long", "--page", str(tmp_path)]) != 0
    assert "is a folder: name a file in it" in capsys.readouterr().err


def test_wrong_suites_are_said_in_a_sentence():
    for changes, message in (
        ({"kinds": ["singel"]}, "unknown kind 'singel': did you mean 'single'"),
        ({"kinds": ["facts"]}, "made from a file: set facts"),
        ({"kinds": []}, "there is nothing to ask"),
        ({"n": 1}, "n must be at least 2"),
    ):
        with pytest.raises(UserError, match=message):
            LongSuite(**changes)
    with pytest.raises(UserError, match="rerotate is not for this suite"):
        LONG_CONTEXT.evaluate(
            "tiny-random", "long", SMALL | {"kv_cache.policy": "streaming", "kv_cache.budget_tokens": 20, "kv_cache.rerotate": True}
        )
    with pytest.raises(UserError, match="more than the model's 256 positions"):
        LONG_CONTEXT.evaluate("tiny-random", "long", SMALL | {"tokens": [1000]})
