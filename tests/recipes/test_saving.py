"""What a run saves: the model with the way it was asked, and its adapters."""

import copy
import json
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from etude.errors import UserError
from etude.learn.settings import Learning
from etude.models.load import convert, load_model
from etude.models.lora_settings import LoRA
from etude.models.save import save_model
from etude.recipes.evaluate import evaluate
from etude.rollouts.prompts import render_prompt
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.tasks.sources import TaskSource
from etude.tasks.task import Task
from etude.tiny import letters, tiny_tokenizer
from etude.training.parse import check_settings, parse_practice
from etude.training.saving import greedy, save_asked
from etude.training.settings import PracticeSettings, WarmStart

SETTINGS = PracticeSettings(TaskSource(family="chain_sum"))


@pytest.fixture(scope="module")
def by_adapters(small, finished, tmp_path_factory):
    """The folder of a run that learned by adapters, of a model of etude's own."""
    folder = tmp_path_factory.mktemp("adapters") / "run"
    small(folder, {"learn.lora.rank": 4, "learn.lora.target_modules": ["q_proj", "up_proj"], "steps": 1})
    return folder


def test_plain_transformers_asks_as_the_run_did(finished):
    question = "repeat c after 12: c"
    tokenizer = AutoTokenizer.from_pretrained(finished / "model")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_dict=False)
    assert tuple(prompt) == render_prompt(tiny_tokenizer(), Task(question))
    assert json.loads((finished / "model" / "generation_config.json").read_text())["max_new_tokens"] == 4


def test_a_saved_model_that_practises_again_is_asked_alike(finished):
    _, tokenizer = load_model(str(finished / "model"))
    for task in (Task("a"), Task("a", instruction="Now."), Task(({"role": "system", "content": "Be."}, {"role": "user", "content": "b"}))):
        assert render_prompt(tokenizer, task) == render_prompt(tiny_tokenizer(), task)


def test_a_template_that_the_base_has_stays(llama, chat_tokenizer, tmp_path):
    save_asked(llama, chat_tokenizer, tmp_path / "model", replace(SETTINGS, system="Be brief."))
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template == chat_tokenizer.chat_template


def test_the_run_trains_with_the_tokenizer_that_it_was_given(llama, tokenizer, tmp_path):
    save_asked(llama, tokenizer, tmp_path / "model", replace(SETTINGS, system="Be brief."))
    assert tokenizer.chat_template is None
    assert "Be brief." in AutoTokenizer.from_pretrained(tmp_path / "model").chat_template


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
    assert (folder / "etude.yaml").read_bytes() == (finished / "model" / "etude.yaml").read_bytes()
    for name in ("generation_config.json", "chat_template.jinja"):
        assert (folder / name).read_text() == (finished / "model" / name).read_text()


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


LORA = LoRA(rank=2, dropout=0.1)


def test_dropout_without_an_update_that_imitates_is_refused():
    for learn in (Learning(lora=LORA), Learning(lora=LORA, method="preference")):
        with pytest.raises(UserError, match=r"learn.lora.dropout is 0.1, but no update imitates"):
            check_settings(replace(SETTINGS, learn=learn))
    check_settings(replace(SETTINGS, learn=Learning(lora=LORA), warm_start=WarmStart(n=8, steps=2)))
    check_settings(replace(SETTINGS, learn=Learning(lora=LORA, method="imitation")))


def test_dropout_beside_a_pull_to_the_start_is_refused():
    how = {"learn.lora.rank": 2, "learn.lora.dropout": 0.1, "learn.method": "imitation"}
    pull = {"replay.path": "x.jsonl", "replay.ratio": 0.1, "replay.kl_coef": 0.1}
    said = r"replay.kl_coef compares the model with its start, which learn.lora.dropout 0.1 changes: set one of them to 0"
    with pytest.raises(UserError, match=said):
        parse_practice(find_configuration("practice", "tiny"), arguments_from(how | pull))
    parse_practice(find_configuration("practice", "tiny"), arguments_from(how | pull | {"replay.kl_coef": 0.0}))
