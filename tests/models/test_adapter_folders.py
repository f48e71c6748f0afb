"""Folders of PEFT: written from a run's adapters, and read as a model."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from etude.errors import UserError
from etude.models.adapter_folders import save_adapter
from etude.models.adapters import add_lora
from etude.models.load import convert, load_model, transformers_name
from etude.models.lora_settings import LoRA
from etude.models.save import save_model

TOKENS = torch.randint(4, 260, (2, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def base(model_of, tokenizer, tmp_path_factory):
    return save_model(model_of("llama"), tokenizer, tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def trained(model_of):
    model = add_lora(model_of("llama"), LoRA(rank=2, alpha=3), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.2)
    return model


@pytest.fixture
def adapter(trained, base, tmp_path):
    save_adapter(trained, tmp_path / "adapter", str(base))
    return tmp_path / "adapter"


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_peft_loads_the_adapter_on_its_base(adapter, base, trained):
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    loaded = PeftModel.from_pretrained(load_model(str(base))[0], str(adapter))
    assert torch.equal(loaded(input_ids=TOKENS).logits, trained(input_ids=TOKENS).logits)


def test_a_folder_of_peft_is_a_model_but_no_base(adapter, trained, tokenizer, chat_tokenizer, tmp_path):
    model, own = load_model(str(adapter))
    assert torch.allclose(model(input_ids=TOKENS).logits, trained(input_ids=TOKENS).logits, atol=1e-4)
    assert not any("lora" in name for name in model.state_dict()) and all(p.requires_grad for p in model.parameters())
    assert own("hey é")["input_ids"] == tokenizer("hey é")["input_ids"] and not model.training
    merged, _ = load_model(str(convert(str(adapter), tmp_path / "merged")))
    assert torch.equal(merged(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits)
    chat_tokenizer.save_pretrained(adapter)
    assert load_model(str(adapter))[1].chat_template == chat_tokenizer.chat_template, "its own tokenizer goes before its base's"
    change(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(UserError, match=r"is an adapter itself: make a model of it with `etude models convert`"):
        load_model(str(adapter))


def test_a_folder_that_peft_saved_loads(base, tmp_path):
    model = get_peft_model(load_model(str(base))[0], LoraConfig(r=2, target_modules=["v_proj"], use_dora=True, init_lora_weights=False))
    model.save_pretrained(tmp_path / "theirs")
    loaded, _ = load_model(str(tmp_path / "theirs"))
    assert torch.allclose(loaded(input_ids=TOKENS).logits, model.eval()(input_ids=TOKENS).logits, atol=1e-4)


def test_the_same_adapter_is_the_same_bytes(trained, base, tmp_path):
    targets = list(trained.peft_config["default"].target_modules)
    for name, order in {"one": targets, "two": targets[::-1]}.items():
        trained.peft_config["default"].target_modules = order  # a set has another in every process
        save_adapter(trained, tmp_path / name, str(base))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_base_may_lie_beside_its_adapter(trained, model_of, tokenizer, tmp_path):
    save_model(model_of("llama"), tokenizer, tmp_path / "base")
    save_adapter(trained, tmp_path / "adapter", "../base")
    assert torch.allclose(load_model(str(tmp_path / "adapter"))[0](input_ids=TOKENS).logits, trained(input_ids=TOKENS).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "expected an adapter of peft_type LORA, got 'PREFIX_TUNING'"),
        ({"megatron_config": {"a": 1}}, "adapter_config.json sets megatron_config, by which code would be imported"),
        ({"base_model_name_or_path": None}, "adapter_config.json names no base"),
        ({"base_model_name_or_path": "/no/such/base"}, "its base, by adapter_config.json: unknown model '/no/such/base'"),
        ({"r": 7}, "can't be loaded: "),
        ({"target_modules": ["q_proj", "no_proj"]}, "can't be loaded: its layers are not those of its base and configuration"),
    ],
)
def test_an_adapter_that_can_not_be_merged_is_one_clear_error(adapter, values, said):
    change(adapter, **values)
    with pytest.raises(UserError, match=said) as error:
        load_model(str(adapter))
    assert "\n" not in str(error.value) and str(adapter) in str(error.value)


def test_weights_that_are_missing_are_not_made_anew_and_a_pickle_is_never_loaded(adapter):
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    weights.popitem()
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"can't be loaded: its layers are not those of its base and configuration"):
        load_model(str(adapter))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"expected adapter_model.safetensors beside adapter_config.json; pickles are never loaded"):
        load_model(str(adapter))


def test_others_know_a_model_by_its_folder_or_hub_id(base, adapter):
    assert transformers_name(str(base)) == str(base)
    assert transformers_name("owner/name") == "owner/name"
    assert transformers_name("tiny-random") is None and transformers_name(str(adapter)) is None
