"""The card that a saved model carries."""

from dataclasses import replace

import pytest
import yaml

from etude.cards.hub_metadata import origin
from etude.cards.practice_card import practice_card, prompt_example
from etude.cards.usage import PromptExample, usage_section
from etude.models.save import save_model
from etude.tasks.actions import Actions
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task
from etude.training.settings import PracticeSettings, WarmStart

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

ASKED = PromptExample("Why?", max_new_tokens=8)


def card(settings, result, asked=ASKED, **options):
    return practice_card(settings, result).text(asked, **options)


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
def test_the_metadata_names_only_a_base_model_of_the_hub(model, base):
    text = card(replace(SETTINGS, model=model), RESULT)
    head = yaml.safe_load(text.split("---")[1])
    assert head.get("base_model") == base and "license" not in head and "somebody" not in text


def test_names_are_escaped():
    hostile = "<script>alert(1)</script>\n# [x](javascript:alert) | `y`"
    text = card(replace(SETTINGS, tasks=TaskSource(family=hostile)), RESULT | {"recipe": hostile})
    assert "<script" not in text and "](javascript" not in text
    assert "&lt;script&gt;alert\\(1\\)&lt;/script&gt; \\# \\[x\\]\\(javascript:alert\\) \\| \\`y\\`" in text


def test_a_finished_run_writes_the_card_beside_the_model(finished):
    text = (finished / "model" / "README.md").read_text()
    assert "random weights, for trying things out, practised with etude on" in text and "| tiny | practice |" in text


def test_the_metadata_holds_the_final_models_metrics():
    rows = [BASE, PRACTICE | {"mean_reward": 1.5, "mean_reward_low": 1.25, "mean_reward_high": 1.75, "suite": "two\nlines"}]
    (model,) = yaml.safe_load(card(SETTINGS, RESULT | {"evaluation": rows}).split("---")[1])["model-index"]
    (found,) = model["results"]
    assert (model["name"], found["dataset"]) == ("mine", {"name": "two lines", "type": "two-lines"})
    assert [(metric["type"], metric["value"]) for metric in found["metrics"]] == [
        ("accuracy", 0.5),
        ("accuracy", 0.45),
        ("mean_reward", 1.5),
    ]
    assert found["metrics"][0]["name"] == "greedy accuracy (n = 200, 95 %: 0.4 to 0.6)"


@pytest.mark.parametrize(("dataset", "named"), [("openai/gsm8k", ["openai/gsm8k"]), ("./openai/gsm8k", None), ("/mnt/somebody/x", None)])
def test_the_metadata_names_only_data_sets_of_the_hub(dataset, named):
    head = yaml.safe_load(card(replace(SETTINGS, tasks=TaskSource(dataset=dataset)), RESULT).split("---")[1])
    assert head.get("datasets") == named
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == ("openai/gsm8k" if named else "test")


def test_the_base_of_a_folder_is_read_from_its_card(llama, tokenizer, tmp_path):
    folder = save_model(llama, tokenizer, tmp_path / "model")
    assert origin(str(folder)) == (None, None)
    for head, expected in {
        "base_model: owner/name\nlicense: apache-2.0": ("owner/name", "apache-2.0"),
        "base_model: /mnt/somebody\nlicense: [x]": (None, None),
        "base_model: [owner/one, owner/two]": (None, None),
        "license: '<b>mine</b>'": (None, None),
        "a: [": (None, None),
    }.items():
        (folder / "README.md").write_text(f"---\n{head}\n---\ntext")
        assert origin(str(folder)) == expected
    (folder / "README.md").write_bytes(b"\xff\xfe---")
    assert origin(str(folder)) == (None, None)


def test_a_card_shows_the_prompt_format(tokenizer, chat_tokenizer):
    told = replace(SETTINGS, system="Be.", tasks=replace(SETTINGS.tasks, actions=Actions(instruction="Now.")))
    tasks = [Task("long" * 100), Task(({"role": "user", "content": "a"},) * 3), Task(({"role": "user", "content": "It's 1?"},))]
    asked = prompt_example(told, tasks, chat_tokenizer)
    words = told.tasks.actions.words
    assert asked.messages == [{"role": "system", "content": "Be."}, {"role": "user", "content": f"It's 1?\n\n{words}"}]
    assert (
        "The chat template is the base model's. Practice prompted it with the system message and the instruction above."
        in usage_section(asked)
    )
    asked = prompt_example(told, tasks, tokenizer)
    assert asked.messages == [{"role": "user", "content": "It's 1?"}]
    assert "writes the question and a line break, with the system message and the instruction, as practice prompted" in usage_section(asked)
    none = replace(asked, template="none")
    assert (
        f"tokenizer({'Be.' + chr(10) + 'It' + chr(39) + 's 1?' + chr(10) * 2 + words + chr(10)!r}, return_tensors='pt')"
        in usage_section(none)
    )
    assert prompt_example(told, [], tokenizer).question == "QUESTION"


def test_a_question_can_not_leave_the_lines_that_show_it():
    text = usage_section(replace(ASKED, question="```\n# x\n<b>"))
    assert text.count("\n```") == 4 and "\n# x" not in text


def test_adapters_have_a_card_that_loads_them_on_their_base():
    text = card(SETTINGS, RESULT, is_adapter=True)
    head = yaml.safe_load(text.split("---")[1])
    assert (head["library_name"], head["base_model"]) == ("peft", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert "AutoPeftModelForCausalLM" in text and "--enable-lora" in text
