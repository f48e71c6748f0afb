import pytest
import torch

from etude.learn.logprobs import _ChosenLogProbs
from etude.models.adapters import add_lora
from etude.models.heads import head_on_positions
from etude.models.lora_settings import LoRA

TOKENS = torch.randint(4, 260, (3, 8), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.tensor([0, 5, 5, 23, 9])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_head_on_equals_indexing_the_full_logits(model_of, family):
    model = model_of(family)
    full_BTV = model(input_ids=TOKENS).logits
    with head_on_positions(model, POSITIONS):
        chosen_NV = model(input_ids=TOKENS).logits
    assert torch.allclose(chosen_NV, full_BTV.flatten(0, 1)[POSITIONS], atol=1e-6)
    assert torch.equal(model(input_ids=TOKENS).logits, full_BTV)


def test_head_on_keeps_soft_caps(model_of):
    model = model_of("gemma3", final_logit_softcapping=2.0)
    with head_on_positions(model, POSITIONS):
        chosen_NV = model(input_ids=TOKENS).logits
    assert chosen_NV.abs().max() <= 2
    assert torch.allclose(chosen_NV, model(input_ids=TOKENS).logits.flatten(0, 1)[POSITIONS], atol=1e-6)


def test_head_on_works_on_a_model_with_adapters(llama):
    expected_NV = llama(input_ids=TOKENS).logits.flatten(0, 1)[POSITIONS]
    adapted = add_lora(llama, LoRA(rank=2), seed=0)
    with head_on_positions(adapted, POSITIONS):
        assert torch.allclose(adapted(input_ids=TOKENS).logits, expected_NV, atol=1e-6)


def test_head_on_is_removed_after_an_error(llama):
    with pytest.raises(IndexError), head_on_positions(llama, torch.tensor([10_000])):
        llama(input_ids=TOKENS)
    assert not llama.lm_head._forward_pre_hooks
    assert llama(input_ids=TOKENS).logits.shape == (3, 8, 260)


@pytest.mark.parametrize("temperatures", [[1.0], [0.7], [0.5, 1.0, 1.0, 1.7, 0.9]])
def test_log_probs_and_entropies_have_autograds_slopes(temperatures):
    generator = torch.Generator().manual_seed(0)
    logits_NV = (3 * torch.randn(40, 50, generator=generator, dtype=torch.float64)).index_fill_(1, torch.tensor([7]), -1e4)
    targets_N, slopes_2N = torch.arange(40) % 7, torch.randn(2, 40, generator=generator, dtype=torch.float64)
    plain_NV, mine_NV = (logits_NV.clone().requires_grad_() for _ in range(2))
    temperatures_N = torch.tensor(temperatures, dtype=torch.float64).repeat(40 // len(temperatures))
    shares_NV = (plain_NV / temperatures_N[:, None]).log_softmax(-1)
    expected = shares_NV.gather(1, targets_N[:, None])[:, 0], -(shares_NV.exp() * shares_NV).sum(-1)
    found = _ChosenLogProbs.apply(mine_NV, targets_N, temperatures_N, True)
    for one, other, slopes_N in zip(found, expected, slopes_2N, strict=True):
        torch.testing.assert_close(one, other)
        gradients = [torch.autograd.grad(value, of, slopes_N, retain_graph=True)[0] for value, of in ((one, mine_NV), (other, plain_NV))]
        torch.testing.assert_close(*gradients)
    assert not _ChosenLogProbs.apply(mine_NV, targets_N, temperatures_N, False)[1].requires_grad
