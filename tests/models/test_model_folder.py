import json
import time

import pytest
import torch

from etude.errors import UserError
from etude.models.load import load_model
from etude.models.model_folder import check_files, num_tensors
from etude.models.save import save_model


@pytest.fixture
def folder(llama, tokenizer, tmp_path):
    return save_model(llama, tokenizer, tmp_path / "model")


def change(folder, file="config.json", **entries):
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | entries))


def refused(folder, message):
    begun = time.perf_counter()
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(folder))
    assert "\n" not in str(caught.value) and time.perf_counter() - begun < 4
    return str(caught.value)


@pytest.mark.parametrize("weights", ["adapter_model.bin", "../outside/w.safetensors", "w.safetensors.index.json", 5])
def test_a_configuration_names_no_weights_but_safetensors_beside_it(folder, llama, weights):
    torch.save(llama.state_dict(), folder / "adapter_model.bin")
    (folder.parent / "outside").mkdir()
    (folder / "model.safetensors").rename(folder.parent / "outside" / "w.safetensors")
    (folder / "other.safetensors").write_bytes((folder.parent / "outside" / "w.safetensors").read_bytes())
    index = {"weight_map": dict.fromkeys(llama.state_dict(), "../outside/w.bin")}
    change(folder, transformers_weights=weights)
    refused(folder, rf"config\.json names {weights!r} as transformers_weights, expected a \*\.safetensors file beside it: remove that line")
    change(folder, transformers_weights="other.safetensors")
    assert load_model(str(folder))[0].lm_head.weight.equal(llama.lm_head.weight)
    (folder / "w.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, r"w\.safetensors\.index\.json names '\.\./outside/w\.bin', expected \*\.safetensors files beside it")


@pytest.mark.parametrize(
    "entries",
    [
        {"attn_implementation": "owner/name"},
        {"_attn_implementation": "paged|owner/name:function"},
        {"attn_implementation": {"text_config": "owner/name"}},
        {"text_config": {"attn_implementation": "owner/name"}},
        {"experts_implementation": "owner/name"},
    ],
)
def test_attention_is_no_code_from_the_hub(folder, entries):
    change(folder, **entries)
    refused(folder, r"config\.json sets \w+ to '.*owner/name.*', which is code from the hub and never loaded: remove that line$")


@pytest.mark.parametrize("layers", [10**8, 10**400, 0, -2])
def test_a_model_has_no_more_layers_than_its_weights_may_fill(folder, layers):
    check_files("it", folder)
    assert num_tensors(folder / "model.safetensors") > 20
    change(folder, num_hidden_layers=layers)
    refused(folder, r"config\.json: num_hidden_layers must be a whole number from 1 to 1,000, which its weights can fill, got -?\d+")
    change(folder, num_hidden_layers=2, text_config={"encoder": [{"n_layer": layers}]})
    refused(folder, r"config\.json: n_layer must be a whole number from 1 to 1,000")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "[1]", r"config\.json must hold a JSON object, got list$"),
        ("config.json", "[" * 100_000, r"config\.json can't be loaded: it is not JSON that can be read"),
        ("generation_config.json", "[1]", r"generation_config\.json must hold a JSON object, got list$"),
        ("tokenizer_config.json", "5", r"tokenizer_config\.json must hold a JSON object, got int$"),
        ("config.json", " " * 10_000_001, r"config\.json has 10,000,001 bytes, the most is 10,000,000$"),
        ("model.safetensors.index.json", "{}", r"model\.safetensors\.index\.json can't be read: it has no weight_map"),
        ("config.json", {"hidden_size": "big"}, r"can't be loaded: Validation error for field 'hidden_size': .*int"),
        ("config.json", {"num_hidden_layers": "2"}, r"can't be loaded: Validation error for field 'num_hidden_layers': .*int"),
        ("config.json", {"num_attention_heads": 7}, r"can't be loaded: Class validation error for validator 'validate_architecture': .*7"),
        ("config.json", {"hidden_size": 64}, r"can't be loaded: the sizes in config\.json are not those of its weights$"),
        ("config.json", {"hidden_act": "nope"}, r"can't be loaded: its files are not what the libraries expect \(KeyError: 'nope'\)$"),
    ],
)
def test_a_configuration_that_is_none_or_has_a_wrong_type_or_size_is_one_sentence(folder, file, content, message):
    if isinstance(content, dict):
        change(folder, file, **content)
    else:
        (folder / file).write_text(content)
    refused(folder, message)


def test_a_folder_without_a_tokenizer_says_so(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    refused(folder, r"can't be loaded: it has no tokenizer that can be read: tokenizer\.json is missing, or what its tokenizer needs")


def test_a_panic_of_the_tokenizer_is_one_sentence(folder):
    from etude.rollouts.prompts import render_answer, render_prompt
    from etude.tasks.task import Task

    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    _, loaded = load_model(str(folder))
    sentence = r"^the model's tokenizer gives up on {}: Onig: Regex search error"
    with pytest.raises(UserError, match=sentence.format(r"train\.jsonl:3")):
        render_prompt(loaded, Task("x" * 400, origin="train.jsonl:3"))
    with pytest.raises(UserError, match=sentence.format("an answer")):
        render_answer(loaded, "x" * 400)
