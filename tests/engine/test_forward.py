"""Which forward pass an architecture gets, and that whatever it gets has the model's logits."""

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from etude.engine import fused
from etude.engine.attention import is_available
from etude.engine.blocks import BlockPrompts
from etude.engine.copied import CopiedContext
from etude.engine.forward import check_copies, find_forward
from etude.engine.fused import FusedForward
from etude.engine.modules import NAME, ModulesForward
from etude.engine.packed import can_pack
from etude.engine.shared import SharedPrompts
from etude.engine.transformers import TransformersEngine
from etude.engine.working_copy import WorkingCopy
from etude.errors import UserError
from etude.kernels import decoding

pytestmark = pytest.mark.skipif(not is_available(torch.device("cpu")), reason="this build of torch has no flash attention for CPUs")

EXPECTED = {
    "llama": FusedForward,
    "qwen3": FusedForward,
    "gpt2": ModulesForward,
    "qwen3-moe": ModulesForward,
    "lfm2": type(None),
    "mamba": type(None),
    "mistral-window": type(None),
    "gemma3": type(None),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_every_architecture_gets_the_fastest_pass_that_has_its_logits(model_of, family, caplog):
    model = model_of(family)
    with caplog.at_level(logging.WARNING, logger="etude"):
        found = find_forward(model, model)
    assert type(found.forward if found else None) is EXPECTED[family]
    assert not caplog.records  # windows and states are known to need transformers' cache: nothing to warn of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", EXPECTED)
def test_rows_that_decode_together_have_the_logits_of_whole_passes(model_of, family, dtype):
    check_copies(model_of(family).to(dtype))


def test_a_model_that_keeps_states_in_its_modules_is_refused(tokenizer):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "lru_width": 32, "num_attention_heads": 4, "num_key_value_heads": 1}
    config = RecurrentGemmaConfig(**sizes, vocab_size=260, num_hidden_layers=3, attention_window_size=16, pad_token_id=0, eos_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = RecurrentGemmaForCausalLM(config).eval()
    with pytest.raises(UserError, match="RecurrentGemmaForCausalLM keeps part of what it has read outside of its cache"):
        TransformersEngine(model, tokenizer)


def assert_same_logits(contexts, tokens):
    expected, found = (context.next_logits(tokens) for context in contexts)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [FusedForward, ModulesForward])
@pytest.mark.parametrize("rows", [[0, 0, 1, 2, 2], [0, 1, 1, 1, 2, 2]])  # too few to share prompts, and enough
@pytest.mark.parametrize("changes", [{}, {"attention_bias": True, "mlp_bias": True}, {"head_dim": 12}, {"rms_norm_eps": 0.1}])
def test_shared_prompts_have_the_logits_of_copied_ones(model_of, monkeypatch, kind, changes, rows):
    monkeypatch.setattr(decoding, "_kernels", dict)
    model = model_of("llama", **changes)
    prompts = [[5, 6, 7], [9], [10, 11, 12, 13]]
    with torch.inference_mode():
        copied, expected = CopiedContext.prefill(model, prompts, pad=0)
        shared, found = SharedPrompts.prefill(kind(model), prompts)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        contexts = [opened.begin(torch.arange(3), 5, samples=len(rows)) for opened in (copied, shared)]
        assert (contexts[1].prompts is None) == (len(rows) < 6)
        assert_same_logits(contexts, torch.tensor([20, 21, 22]))
        for kept in (rows, [1, 1, 2], [0]):  # samples part; some end, and with them prompts that nobody continues
            for context in contexts:
                context.keep(torch.tensor(kept), 4)
            assert_same_logits(contexts, torch.tensor(kept) + 30)


@pytest.mark.skipif(not decoding.kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")
@pytest.mark.parametrize("kind", [FusedForward, ModulesForward])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(
    "changes", [{"head_dim": 16}, {"head_dim": 80, "attention_bias": True}, {"num_key_value_heads": 1, "head_dim": 64}]
)
def test_prompts_in_blocks_have_the_logits_of_copied_ones(model_of, kind, family, changes):
    model = model_of(family, **changes)
    prompts = [[5, 6, 7], [9], list(range(10, 70))]  # beyond a block
    with torch.inference_mode():
        copied, expected = CopiedContext.prefill(model, prompts, pad=0)
        blocks, found = BlockPrompts.prefill(kind(model), prompts)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        contexts = [opened.begin(torch.arange(3), 50, samples=12) for opened in (copied, blocks)]
        assert_same_logits(contexts, torch.tensor([20, 21, 22]))
        for turn, kept in enumerate([[0, 0, 1, *[2] * 9], [0, 1, 2, 3, 5, 5, 6, 7, 11], [0, 4, 4, 8], [2, 3]]):  # forks, ends, and both
            for context in contexts:
                context.keep(torch.tensor(kept), 50)
            for number in range(1 if turn % 2 else 18):  # beyond a block of own tokens
                assert_same_logits(contexts, torch.arange(len(kept)) + number)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotations_that_change_with_the_longest_row_are_left_to_transformers(model_of, kind):
    factors = {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4} if kind == "longrope" else {}
    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 8, **factors}
    model = model_of("llama", rope_parameters=rope)
    assert find_forward(model, model) is None


def test_a_pass_with_other_logits_is_not_taken(llama, caplog, monkeypatch):
    right = FusedForward.logits
    monkeypatch.setattr(FusedForward, "logits", lambda self, *given: right(self, *given).flip(-1))
    assert type(find_forward(llama, llama).forward) is ModulesForward
    monkeypatch.setattr(ModulesForward, "logits", lambda self, *given: 1 / 0)
    with caplog.at_level(logging.WARNING, logger="etude"):
        assert find_forward(llama, llama) is None
    (record,) = caplog.records
    assert "LlamaForCausalLM decodes with a copy of the prompt for each sample" in record.message
    assert "FusedForward: other logits" in record.message and "ModulesForward: division by zero" in record.message


def test_attention_with_more_than_queries_and_keys_is_left_to_transformers(llama):
    module, states, left_to_attend = llama.model.layers[0].self_attn, torch.zeros(1, 4, 3, 8), AttentionInterface()[NAME]
    with pytest.raises(NotImplementedError, match="softcap"):
        left_to_attend(module, states, states, states, None, attend=lambda *given: given[1], softcap=30.0)


def test_a_pass_leaves_the_models_attention_as_it_was(llama):
    before = llama.config._attn_implementation
    with torch.inference_mode():
        SharedPrompts.prefill(ModulesForward(llama), [[5, 6]])
    assert llama.config._attn_implementation == before != NAME


@pytest.mark.skipif(
    not can_pack(torch.device("cpu"), torch.bfloat16) or not decoding.kernels_for(torch.device("cpu"), torch.bfloat16),
    reason="there is no C++ compiler, or torch packs no weights here",
)
@pytest.mark.parametrize(
    ("family", "changes"), [("llama", {"attention_bias": True, "mlp_bias": True}), ("qwen3", {"head_dim": 32}), ("llama", {})]
)
def test_all_layers_by_one_kernel_are_the_same_to_the_bit(model_of, monkeypatch, family, changes):
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "head_dim": 16}
    model = model_of(family, **sizes | changes)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.3, generator=torch.Generator().manual_seed(len(name)))
    forward = FusedForward(WorkingCopy(model, torch.bfloat16).model)
    assert forward._few_rows
    with torch.inference_mode():
        prompts, _ = BlockPrompts.prefill(forward, [[5, 6, 7], [9], [10, 11, 12, 13]])
        contexts = [prompts.begin(torch.tensor([0, 0, 2]), 40, samples=3) for _ in range(2)]
        for step in range(38):
            if step == 20:  # one ends and another forks
                for context in contexts:
                    context.keep(torch.tensor([1, 1, 2]), 20)
            tokens = torch.tensor([4 + step, 9, 200 - step])
            found = contexts[0].next_logits(tokens)
            with monkeypatch.context() as patched:
                patched.setattr(forward, "_few_rows", None)
                assert torch.equal(contexts[1].next_logits(tokens), found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_what_layers_give_is_kept_of_the_tokens_asked_for(model_of, dtype):
    if not decoding.kernels_for(torch.device("cpu"), dtype):
        pytest.skip("there are no kernels of this precision")
    model = model_of("qwen3", hidden_size=64, intermediate_size=96, num_hidden_layers=3)
    forward = FusedForward(WorkingCopy(model, dtype).model if dtype == torch.bfloat16 else model)
    kept: dict[int, list[torch.Tensor]] = {}

    @dataclass(frozen=True)
    class Keeping:
        model: Any

        def logits(self, *args: Any) -> torch.Tensor:
            return forward.logits(*args, keep_layer_output=lambda layer, states: kept.setdefault(layer, []).append(states.float()))

    prompts, _ = BlockPrompts.prefill(Keeping(forward.model), [[5, 6, 7], [9, 8]])
    context = prompts.begin(torch.tensor([0, 1]), 4, samples=2)
    context.next_logits(torch.tensor([20, 21]))
    for row, tokens in enumerate(([5, 6, 7, 20], [9, 8, 21])):
        hidden = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states
        for layer in range(3):  # transformers norms the last one
            for step, place in enumerate((-2, -1)):
                expected = hidden[layer][0, place]
                assert (kept[layer][step][row] - expected).norm() < {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype] * expected.norm()
        normed = model.model.norm(kept[3][-1][row])
        assert (normed - hidden[3][0, -1]).norm() < {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype] * normed.norm()


@torch.inference_mode()
def test_weights_are_kept_once_where_memory_has_no_room_for_more(model_of, monkeypatch):
    model, prompts = model_of("qwen3"), [[5, 6, 7], [9, 8]]
    found = {}
    for has_room in (True, False):
        monkeypatch.setattr("etude.engine.fused._has_room_for", lambda _, answer=has_room: answer)
        forward = FusedForward(model)
        assert bool(forward._layers[0].up._panels) is (has_room and bool(decoding.kernels_for(torch.device("cpu"), torch.float32)))
        found[has_room] = SharedPrompts.prefill(forward, prompts)[1]
    torch.testing.assert_close(found[True], found[False], atol=1e-4, rtol=1e-4)


def test_prompts_are_filled_up_to_few_sizes_by_an_eighth_at_most():
    filled = {rows: rows + fused._spare(rows) for rows in range(33, 2049)}
    assert all(0 <= size - rows < max(32, rows / 8) and size % 32 == 0 for rows, size in filled.items())
    assert len(set(filled.values())) == 31  # 64 to 256 by 32, then 8 sizes to 512, to 1,024 and to 2,048
