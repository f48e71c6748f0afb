"""What a run saves: the model with the way it was asked, and its adapters."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import yaml
from run_outputs import assert_same
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from etude.errors import UserError
from etude.models.load import convert
from etude.models.save import save_model
from etude.recipes.evaluate import evaluate
from etude.rollouts.prompts import render_prompt
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task
from etude.tiny import letters, tiny_tokenizer
from etude.training.saving import greedy, save_asked
from etude.training.settings import PracticeSettings

SETTINGS = PracticeSettings(TaskSource(family="chain_sum"))


@pytest.fixture(scope="module")
def by_adapters(small, finished, tmp_path_factory):
    """The folder of a run that learned by adapters, of a model of etude's own."""
    folder = tmp_path_factory.mktemp("adapters") / "run"
    small(folder, {"learn.lora.rank": 4, "learn.lora.target_modules": ["q_proj", "up_proj"], "steps": 1})
    return folder


def test_plain_transformers_and_another_run_ask_as_the_run_did(finished):
    question = "repeat c after 12: c"
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False)
    assert tuple(prompt) == render_prompt(tiny_tokenizer(), Task(question))
    for task in (Task("a"), Task("a", instruction="Now."), Task(({"role": "system", "content": "Be."}, {"role": "user", "content": "b"}))):
        assert render_prompt(tokenizer, task) == render_prompt(tiny_tokenizer(), task)
    assert json.loads((finished / "model" / "generation_config.json").read_text())["max_new_tokens"] == 4


def test_a_template_that_the_base_has_stays_and_the_run_trains_with_the_tokenizer_that_it_was_given(
    llama, tokenizer, chat_tokenizer, tmp_path
):
    for name, given in (("has", chat_tokenizer), ("lacks", tokenizer)):
        save_asked(llama, given, tmp_path / name, replace(SETTINGS, system="Be brief."))
    has, lacks = (AutoTokenizer.from_pretrained(tmp_path / name).chat_template for name in ("has", "lacks"))
    assert has == chat_tokenizer.chat_template and tokenizer.chat_template is None and "Be brief." in lacks


def test_what_ends_an_answer_in_the_run_ends_it_elsewhere(llama, chat_tokenizer, tmp_path):
    llama.generation_config = GenerationConfig(eos_token_id=[3, 5], temperature=0.3, repetition_penalty=1.3, max_length=9)
    save_asked(llama, chat_tokenizer, tmp_path / "model", SETTINGS)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "model").generation_config
    assert (saved.eos_token_id, saved.pad_token_id, saved.do_sample) == ([1, 3, 5], 0, False)
    assert saved.repetition_penalty is None and saved.max_new_tokens == SETTINGS.rollout.max_new_tokens
    only = copy.copy(chat_tokenizer)
    llama.generation_config = GenerationConfig(eos_token_id=1)
    assert greedy(llama, only, 7).eos_token_id == 1


def test_a_base_whose_way_of_generating_is_odd_can_be_saved(llama, tokenizer, tmp_path):
    llama.generation_config = GenerationConfig(eos_token_id=1, temperature=0.3, do_sample=False)
    save_asked(llama, tokenizer, tmp_path / "model", SETTINGS)
    assert convert(str(tmp_path / "model"), tmp_path / "copy").exists()
    save_model(llama, tokenizer, tmp_path / "plain")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").generation_config
    assert (saved.temperature, saved.do_sample) == (0.3, True) and llama.generation_config.do_sample is False


def test_converting_a_practised_model_keeps_how_it_is_asked(finished, tmp_path):
    folder = convert(str(finished / "model"), tmp_path / "copy")
    assert_same(folder, finished / "model", ("etude.yaml", "generation_config.json", "chat_template.jinja"))


def test_adapters_are_saved_beside_the_merged_model_on_a_base_that_others_can_load(by_adapters):
    from peft import PeftModel

    told = json.loads((by_adapters / "adapter" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str((by_adapters / "base").resolve()) and told["target_modules"] == ["q_proj", "up_proj"]
    base = AutoModelForCausalLM.from_pretrained(by_adapters / "base")
    merged = AutoModelForCausalLM.from_pretrained(by_adapters / "model")
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert not torch.allclose(base(tokens).logits, merged(tokens).logits, atol=1e-3)
        found = PeftModel.from_pretrained(base, by_adapters / "adapter")(tokens).logits
        assert torch.allclose(found, merged(tokens).logits, atol=1e-5)


def test_the_folder_of_adapters_is_a_model_that_is_asked_alike(by_adapters, tmp_path):
    rows = list(letters("test", 20, seed=0))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"evaluation.path": [str(tmp_path / "test.jsonl")], "evaluation.pass_n": 0}
    merged, adapter = (evaluate(str(by_adapters / name), asked) for name in ("model", "adapter"))
    assert adapter["items"] == merged["items"]
    assert yaml.safe_load((by_adapters / "adapter" / "etude.yaml").read_text())["max_new_tokens"] == 4


def test_a_base_that_others_can_load_is_named_and_not_written_again(small, finished, tmp_path):
    small(tmp_path / "run", {"model": str(finished / "model"), "learn.lora.rank": 2, "warm_start.steps": 1, "steps": 0})
    told = json.loads((tmp_path / "run/adapter/adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(finished / "model") and not (tmp_path / "run/base").exists()


def test_a_target_that_the_model_lacks_leaves_no_folder(small, tmp_path):
    with pytest.raises(UserError, match=r"unknown linear layer in lora.target_modules 'c_attn'"):
        small(tmp_path / "run", {"learn.lora.rank": 2, "learn.lora.target_modules": ["c_attn"]})
    assert not (tmp_path / "run").exists()
