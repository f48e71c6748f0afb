"""The fused pass of an update against transformers' modules, values and gradients."""

import pytest
import torch

from etude.kernels.update import kernels_for
from etude.learn import fused, logprobs
from etude.learn.batches import pack
from etude.learn.example import Example
from etude.learn.fused import FusedPass
from etude.learn.logprobs import token_logprobs
from etude.models.adapters import add_lora
from etude.models.lora_settings import LoRA

pytestmark = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")
SHAPES = [
    ("llama", {"head_dim": 16}),
    ("llama", {"head_dim": 48, "num_key_value_heads": 4, "tie_word_embeddings": True, "rms_norm_eps": 0.1}),
    ("llama", {"head_dim": 32, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    ("qwen2", {}),
    ("qwen3", {}),
]


def examples(seed=0):
    """Groups whose samples part early and late; one that comes twice."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(n):
        return tuple(torch.randint(4, 260, (n,), generator=generator).tolist())

    found = []
    for prompt_tokens, length in ((3, 4), (40, 30), (70, 45)):
        prompt, longest = tokens(prompt_tokens), tokens(length)
        found += [Example(prompt, (*longest[:shared], *tokens(9)), imitate=(1.0,) * (shared + 9)) for shared in (0, 0, length // 2, length)]
    return [*found, found[-1]]


def found_by(model, monkeypatch, *, is_fused, dtype=torch.float32, entropy_slopes=False, **options):
    """Log-probs and entropies of all micro-batches, and the gradient of a combination of the log-probs (and of the entropies)."""
    monkeypatch.setattr(logprobs, "FusedPass", FusedPass if is_fused else NoFusedPass)
    assert not is_fused or FusedPass.of(model, dtype)
    model.zero_grad()
    outputs = []
    temperatures = [(0.8, 1.0)[number % 2] for number in range(len(examples()))]
    for batch in pack(examples(), **{"batch_tokens": 300, "shares_prefixes": True} | options, temperatures=temperatures):
        output = token_logprobs(model, batch, dtype, entropy_slopes=entropy_slopes)
        total = (output.logprobs_N * torch.linspace(-1, 1.5, len(output.logprobs_N))).sum()
        if entropy_slopes:
            total = total + (output.entropy_N * torch.linspace(2, -1, len(output.entropy_N))).sum()
        total.backward()
        outputs.append(torch.stack([output.logprobs_N.detach(), output.entropy_N.detach()]))
    return torch.cat(outputs, 1), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


class NoFusedPass:
    @staticmethod
    def of(model, dtype):
        return None


@pytest.mark.parametrize(("family", "changes"), SHAPES)
@pytest.mark.parametrize("shares_prefixes", [True, False])
@pytest.mark.parametrize("rows", [50, 1024])
def test_values_and_gradients_are_those_of_the_modules(model_of, monkeypatch, family, changes, shares_prefixes, rows):
    model = model_of(family, **changes)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.3, generator=torch.Generator().manual_seed(len(name)))
    expected, gradients = found_by(model, monkeypatch, is_fused=False, shares_prefixes=shares_prefixes)
    monkeypatch.setattr(fused, "_HEAD_ROWS", rows)
    found, mine = found_by(model, monkeypatch, is_fused=True, shares_prefixes=shares_prefixes)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    for name, gradient in gradients.items():
        assert (mine[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


def test_a_graph_that_is_kept_gives_the_same_gradients_again(model_of):
    model = model_of("llama", head_dim=16)
    batch = next(iter(pack(examples(), batch_tokens=300, shares_prefixes=True)))
    total = token_logprobs(model, batch).logprobs_N.sum()
    first, again = (torch.autograd.grad(total, list(model.parameters()), retain_graph=True) for _ in range(2))
    assert all(map(torch.equal, first, again))


def test_entropies_have_the_modules_slopes_where_they_are_asked_for(model_of, monkeypatch):
    model = model_of("llama", head_dim=16, initializer_range=0.3)
    monkeypatch.setattr(fused, "_HEAD_ROWS", 50)
    found, mine = found_by(model, monkeypatch, is_fused=True, entropy_slopes=True)
    without, plain = found_by(model, monkeypatch, is_fused=True)
    _, gradients = found_by(model, monkeypatch, is_fused=False, entropy_slopes=True)
    assert torch.equal(found, without)
    for name, gradient in gradients.items():
        assert (mine[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name
        assert (mine[name] - plain[name]).norm() > 0.01 * gradient.norm() or not gradient.norm(), name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_half_precision_is_as_near_to_full_as_the_modules_are(model_of, monkeypatch, family):
    model = model_of(family, head_dim=32, initializer_range=0.1)
    expected, gradients = found_by(model, monkeypatch, is_fused=False)
    errors = {}
    for is_fused in (False, True):
        found, mine = found_by(model, monkeypatch, is_fused=is_fused, dtype=torch.bfloat16)
        errors[is_fused] = [(found - expected).abs().mean(), *((mine[name] - gradients[name]).norm() for name in gradients)]
    assert all(mine <= 1.5 * modules + 1e-6 for mine, modules in zip(errors[True], errors[False], strict=True))
    assert sum(errors[True]) <= 1.1 * sum(errors[False])


def test_tokens_that_fill_up_to_an_even_number_change_nothing(model_of, monkeypatch):
    model, found = model_of("llama", head_dim=32, initializer_range=0.1), {}
    for even in (1, 128, 500):
        monkeypatch.setattr(fused, "_EVEN", even)
        found[even] = found_by(model, monkeypatch, is_fused=True, dtype=torch.bfloat16)
    for even in (128, 500):
        torch.testing.assert_close(found[even][0], found[1][0], atol=0.05, rtol=0.02)
        for name, gradient in found[1][1].items():
            assert (found[even][1][name] - gradient).norm() <= 0.02 * gradient.norm() + 1e-4, name


def test_a_token_that_the_model_does_not_know_is_an_error(model_of):
    example = Example((5, 6), (7, 260), imitate=(1.0, 1.0))
    (batch,) = pack([example], batch_tokens=100, shares_prefixes=True)
    with pytest.raises(ValueError, match="the token 260, but the model has 260: resize"):
        token_logprobs(model_of("llama", head_dim=16), batch)


def test_neither_logits_nor_what_can_be_computed_again_is_kept(model_of, monkeypatch):
    monkeypatch.setattr(fused, "_EVEN", 1)
    model, kept = model_of("llama", head_dim=16), []
    (batch,) = pack(examples(), batch_tokens=10_000, shares_prefixes=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        token_logprobs(model, batch)
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = [tensor for tensor in kept if tensor.is_floating_point() and tensor.data_ptr() not in weights]
    tokens, config = int((batch.ends_BT > 0).sum()), model.config
    layer = 2 * config.hidden_size + (2 * 4 + 2 * 2) * 16 + 2 * config.intermediate_size  # inputs, states and what was read, gates
    normalisers = 2 + 4
    head = 2 * config.hidden_size + 3
    assert sum(tensor.numel() for tensor in kept) <= config.num_hidden_layers * tokens * (layer + normalisers) + len(batch.targets_M) * head
    assert not any(config.vocab_size in tensor.shape for tensor in kept)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"head_dim": 8}),
        ("llama", {"head_dim": 16, "attention_bias": True}),
        ("llama", {"head_dim": 16, "mlp_bias": True}),
        ("llama", {"head_dim": 16, "hidden_act": "gelu"}),
        ("llama", {"head_dim": 16, "attn_implementation": "eager"}),
        ("mistral-window", {"head_dim": 16}),
        ("qwen3-moe", {"head_dim": 16}),
        ("gemma3", {"head_dim": 16}),
    ],
)
def test_other_shapes_keep_their_modules(model_of, family, changes):
    assert FusedPass.of(model_of(family, **changes), torch.float32) is None


def test_modules_that_somebody_changed_or_listens_to_are_kept(model_of):
    hooked, replaced, normed = (model_of("llama", head_dim=16) for _ in range(3))
    hooked.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    replaced.model.layers[1].self_attn.q_proj = torch.nn.Sequential(replaced.model.layers[1].self_attn.q_proj)
    injected = add_lora(normed, LoRA(rank=2), seed=0).get_base_model()
    assert not any(FusedPass.of(model, torch.float32) for model in (hooked, replaced, injected))


def test_adapters_and_other_precisions_keep_their_modules(model_of):
    assert FusedPass.of(model_of("llama", head_dim=16), torch.bfloat16)
    assert FusedPass.of(model_of("llama", head_dim=16).double(), torch.float64) is None
    assert FusedPass.of(model_of("llama", head_dim=16).bfloat16(), torch.bfloat16) is None
    assert FusedPass.of(add_lora(model_of("llama", head_dim=16), LoRA(rank=2), seed=0), torch.float32) is None
