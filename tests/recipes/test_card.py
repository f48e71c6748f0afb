"""The card that a saved model carries."""

from dataclasses import replace

import pytest
import yaml

from etude.recipes.card import card
from etude.recipes.settings import PracticeSettings, WarmStart
from etude.tasks.sources import TaskSource

BASE = {"suite": "test", "model": "base", "n": 200, "accuracy": 0.25, "accuracy_low": 0.2, "accuracy_high": 0.3, "baselines": {}}
PRACTICE = {**BASE, "model": "practice", "accuracy": 0.5, "accuracy_low": 0.4, "accuracy_high": 0.6, "sampled_accuracy": 0.45}
KNOWN = {"perplexity": 21.237, "choice_accuracy": 0.6, "choice_accuracy_low": 0.5, "choice_accuracy_high": 0.7, "choices_n": 80}
RESULT = {
    "recipe": "mine",
    "seed": 3,
    "evaluation": [BASE, PRACTICE | {"baselines": {"last_number": 0.1, "sum": 0.2}}],
    "retention": [{"model": "practice", **KNOWN}],
}
SETTINGS = PracticeSettings(TaskSource(path=["/mnt/somebody/secret/train.jsonl"]), steps=40, warm_start=WarmStart(n=64, steps=15))


def test_a_card_names_base_data_recipe_and_numbers_with_intervals():
    text = card(SETTINGS, RESULT)
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct" and head["license"] == "apache-2.0"
    assert "dequantised from 4-bit \\(Q4\\_1\\) weights, practised with etude on train.jsonl: 15 updates on demonstrations, then 40" in text
    assert "| test | practice | 50.0% [40.0%, 60.0%] | 45.0% | 200 |" in text
    assert "| test | best trivial rule: sum | 20.0% | | |" in text
    assert "| practice | 21.24 | 60.0% [50.0%, 70.0%] | 80 |" in text
    assert "somebody" not in text


@pytest.mark.parametrize(("model", "base"), [("owner/name", "owner/name"), ("/mnt/somebody/model", None), ("./model", None)])
def test_only_a_model_of_the_hub_is_a_base_that_others_can_find(model, base):
    text = card(replace(SETTINGS, model=model), RESULT)
    head = yaml.safe_load(text.split("---")[1])
    assert head.get("base_model") == base and "license" not in head and "somebody" not in text


def test_names_that_would_be_markup_are_text():
    hostile = "<script>alert(1)</script>\n# [x](javascript:alert) | `y`"
    text = card(replace(SETTINGS, tasks=TaskSource(family=hostile)), RESULT | {"recipe": hostile})
    assert "<script" not in text and "](javascript" not in text
    assert "&lt;script&gt;alert\\(1\\)&lt;/script&gt; \\# \\[x\\]\\(javascript:alert\\) \\| \\`y\\`" in text


def test_a_finished_run_writes_the_card_beside_the_model(finished):
    text = (finished / "model" / "README.md").read_text()
    assert "random weights, for trying things out, practised with etude on" in text and "| tiny | practice |" in text
