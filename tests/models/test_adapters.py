import pytest
import torch

from etude.errors import UserError
from etude.models.adapters import adapter_dropout, add_lora, base_weights, disable_adapters, merged_weights
from etude.models.lora_settings import LoRA

TOKENS = torch.randint(4, 260, (2, 8), generator=torch.Generator().manual_seed(0))


def moved(model):
    """The model with adapters that no longer stand for zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def test_rank_zero_is_the_model_itself_with_nothing_to_merge_disable_or_drop_out(llama):
    assert add_lora(llama, LoRA(), seed=0) is llama
    assert all(parameter.requires_grad for parameter in llama.parameters())
    assert merged_weights(llama)["lm_head.weight"].data_ptr() == llama.lm_head.weight.data_ptr()
    with disable_adapters(llama), adapter_dropout(llama, 0):
        assert llama(input_ids=TOKENS).logits.shape == (2, 8, 260) and not llama.training


def test_a_fresh_adapter_and_a_disabled_one_are_the_base_model(llama):
    expected = llama(input_ids=TOKENS).logits
    model = add_lora(llama, LoRA(rank=2), seed=0)
    assert torch.equal(model(input_ids=TOKENS).logits, expected)
    moved(model)
    assert not torch.allclose(model(input_ids=TOKENS).logits, expected, atol=1e-2)
    with disable_adapters(model):
        assert torch.equal(model(input_ids=TOKENS).logits, expected)
    assert not torch.allclose(model(input_ids=TOKENS).logits, expected, atol=1e-2)


def test_only_adapters_of_the_inner_layers_are_trainable(llama):
    model = add_lora(llama, LoRA(rank=2), seed=0)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 7 * 2 and all(".lora_" in name for name in trainable)
    assert not any("lm_head" in name or "embed" in name for name in trainable)


def test_the_seed_decides_the_adapter_and_nothing_else(model_of):
    def first(seed):
        return [p.clone() for n, p in add_lora(model_of("llama"), LoRA(rank=2), seed=seed).named_parameters() if "lora_A" in n]

    torch.manual_seed(0)
    before = torch.get_rng_state()
    a, same, other = first(2**64 - 1), first(2**64 - 1), first(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, a, same)) and not any(map(torch.equal, a, other))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # GPT-2's layers are transposed
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma3"])
def test_merged_weights_are_the_plain_model_that_adapters_stand_for(model_of, family):
    model = moved(add_lora(model_of(family), LoRA(rank=2), seed=0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = model_of(family, seed=5)
    plain.load_state_dict(merged_weights(model))
    assert torch.allclose(plain(input_ids=TOKENS).logits, model(input_ids=TOKENS).logits, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_scale_is_alpha_over_rank_with_twice_the_rank_as_default(model_of):
    default, given = (moved(add_lora(model_of("llama"), LoRA(rank=2, alpha=alpha), seed=0)) for alpha in (None, 8))
    base = model_of("llama").state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    deltas = [merged_weights(model)[name] - base[name] for model in (default, given)]
    assert torch.allclose(2 * deltas[0], deltas[1], atol=1e-6)


def test_adapters_are_on_the_modules_that_were_named(model_of):
    model = add_lora(model_of("llama"), LoRA(rank=2, target_modules=["q_proj", "model.layers.1.mlp.up_proj"]), seed=0)
    on = {name.split(".lora_")[0].removeprefix("base_model.model.") for name, p in model.named_parameters() if p.requires_grad}
    assert on == {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}


NEAR = [("q_porj", r" did you mean 'q_proj'\?"), ("lm_head", ""), ("embed_tokens", ""), ("layers", "")]


@pytest.mark.parametrize(("target", "near"), NEAR)
def test_a_target_that_is_no_inner_linear_layer_is_refused(llama, target, near):
    with pytest.raises(UserError, match=rf"unknown linear layer in lora.target_modules '{target}':{near} .*gate_proj"):
        add_lora(llama, LoRA(rank=2, target_modules=["k_proj", target]), seed=0)


def test_base_weights_are_the_model_that_adapters_were_put_on(model_of):
    model = moved(add_lora(model_of("qwen3"), LoRA(rank=2), seed=0))
    plain = model_of("qwen3", seed=5)
    plain.load_state_dict(base_weights(model))
    assert torch.equal(plain(input_ids=TOKENS).logits, model_of("qwen3")(input_ids=TOKENS).logits)


def test_adapter_dropout_depends_on_the_seed_alone_and_ends_with_the_context(model_of):
    model = moved(add_lora(model_of("llama"), LoRA(rank=2, dropout=0.5), seed=0))
    plain = model(input_ids=TOKENS).logits

    def dropped(seed):
        with adapter_dropout(model, seed):
            return model(input_ids=TOKENS).logits

    before = torch.get_rng_state()
    first, other = dropped(2**64 - 1), dropped(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, dropped(2**64 - 1)) and not torch.allclose(first, other) and not torch.allclose(first, plain)
    assert torch.equal(model(input_ids=TOKENS).logits, plain) and not any(module.training for module in model.modules())
    without = moved(add_lora(model_of("llama"), LoRA(rank=2), seed=0))
    with adapter_dropout(without, 0):
        assert not any(module.training for module in without.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, r"lora.rank must be 0"),
        ({"rank": 1, "dropout": 1.0}, r"lora.dropout must be 0 \(off\) or more and below 1, got 1"),
        ({"dropout": 0.1}, r"lora.dropout is 0.1 but lora.rank is 0, so it has no effect"),
        ({"target_modules": ["q_proj"]}, r"lora.target_modules is \['q_proj'\] but lora.rank is 0"),
        ({"alpha": 4}, r"lora.alpha is 4 but lora.rank is 0, so it has no effect"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        LoRA(**options)
