"""Positions within what is kept: the model reads what is left of a text as if nothing else had ever been there."""

import copy
from dataclasses import replace

import pytest
import torch
from test_attach import generated, tokens
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from etude.errors import UserError
from etude.evaluation.long.multi_policy import Reading
from etude.kv_cache.attach import attach
from etude.kv_cache.cache_io import load_cache, save_cache
from etude.kv_cache.policies import EVICTION
from etude.kv_cache.rotation import Rotation

STREAMING = replace(EVICTION["streaming"], budget_tokens=12, every_tokens=3, rerotate=True)


def one_layer(model):
    """Its keys and values depend on tokens and positions alone, so that what was dropped leaves no trace in what is kept."""
    model = copy.deepcopy(model)
    del model.model.layers[1:]
    model.config.num_hidden_layers = 1
    return model


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_layer_reads_what_is_kept_as_a_text_of_its_own(model_of, family):
    model = one_layer(model_of(family))
    text = torch.randint(4, 250, (60,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad(), attach(model, STREAMING):
        output = model(torch.tensor([text[:25]]))
        kept, fresh = [*text[:4], *text[17:25]], 0
        for piece in (text[25:31], *([token] for token in text[31:])):  # a later prompt, then token by token
            output = model(torch.tensor([piece]), past_key_values=output.past_key_values)
            kept += piece
            with torch.no_grad():
                expected = copy.deepcopy(model)(torch.tensor([kept]), use_cache=False).logits[0, -1]
            torch.testing.assert_close(output.logits[0, -1], expected, atol=1e-4, rtol=1e-4)
            fresh = fresh + 1 if len(piece) == 1 else 3
            if fresh == 3:
                kept, fresh = [*kept[:4], *kept[-8:]], 0
    assert len(kept) < 16


@pytest.mark.parametrize("name", ["streaming", "tova", "snapkv", "h2o", "key_norm", "ada_snapkv"])
def test_it_is_the_models_own_where_all_is_kept_and_rows_of_a_batch_are_what_they_are_alone(llama, name):
    ids, mask = tokens(40, 23)
    policy = replace(EVICTION[name], rerotate=True, every_tokens=4)
    _, own = generated(llama, ids, mask)
    with attach(llama, replace(policy, keep_ratio=1.0)):
        torch.testing.assert_close(generated(llama, ids, mask)[1], own, atol=1e-4, rtol=1e-4)
    with attach(llama, replace(policy, budget_tokens=10)):
        _, together = generated(llama, ids, mask)
        _, alone = generated(llama, ids[1:, -23:], mask[1:, -23:])
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)
    with attach(llama, replace(policy, budget_tokens=10, rerotate=False)):
        assert (generated(llama, ids, mask)[1] - together).abs().max() > 0.01


def test_remembered_queries_move_with_their_own_tokens(llama):
    """Else what they read of what is kept would change by being dropped around."""
    policy = replace(EVICTION["snapkv"], budget_tokens=14, every_tokens=0, rerotate=True)
    policy = replace(policy, score=replace(policy.score, queries=6))
    text = torch.randint(4, 250, (40,), generator=torch.Generator().manual_seed(0))[None]
    with torch.no_grad(), attach(llama, policy) as attached:
        cache = llama(text).past_key_values
        layer = cache.layers[0]
        segments = layer.slots.row(0)
        read = layer.score_inputs(0, segments, 14, policy).attention(6)
    with torch.no_grad(), attach(llama, replace(policy, rerotate=False)):
        own = llama(text).past_key_values.layers[0]
        expected = own.score_inputs(0, own.slots.row(0), 14, policy).attention(6)
    recent = slice(-6, None)
    scores = read[..., recent] / read[..., recent].sum(-1, keepdim=True)
    torch.testing.assert_close(scores, expected[..., recent] / expected[..., recent].sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)
    assert attached.policy.rerotate and (read - expected).abs().max() > 1e-4, "what is further away stands nearer now"


def test_turning_further_and_back_is_turning_to_the_place_itself(llama):
    rotation, module = Rotation.of(llama.model), llama.model.layers[0].self_attn
    states = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    start, by = torch.tensor([3, 9, 0, 50, 7]), torch.tensor([4, -9, 0, -20, 1])
    at = [rotation.mean_turned(module, states[:, place : place + 1], (start + by)[place : place + 1]) for place in range(5)]
    turned = [rotation.mean_turned(module, states[:, place : place + 1], start[place : place + 1]) for place in range(5)]
    torch.testing.assert_close(rotation.moved(module, torch.cat(turned, 1), by), torch.cat(at, 1), atol=1e-5, rtol=1e-5)


def test_half_precision_is_refused_since_keys_that_move_by_little_stay_where_they_are(model_of):
    model = model_of("llama").bfloat16()
    with pytest.raises(UserError, match=r"set machine\.dtype to float32, or leave rerotate out"), attach(model, STREAMING):
        raise AssertionError("it is refused")
    rotation, module = Rotation.of(model.model), model.model.layers[0].self_attn
    keys = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(0))

    def moved(keys: torch.Tensor) -> torch.Tensor:
        for _ in range(400):
            keys = rotation.moved(module, keys, torch.full((40,), -1))
        return rotation.moved(module, keys.float(), torch.full((40,), 400))

    assert (moved(keys) - keys).norm() / keys.norm() < 1e-4 < 0.1 < (moved(keys.bfloat16()) - keys).norm() / keys.norm()


@pytest.mark.parametrize("family", ["gpt2", "gptneox"])
def test_models_whose_positions_can_not_be_moved_are_refused_before_they_read(model_of, family):
    shape = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(**shape)).eval() if family == "gptneox" else model_of(family)  # a quarter of a head is turned
    with pytest.raises(UserError, match="can't be counted anew: leave rerotate out"), attach(model, STREAMING):
        raise AssertionError("it is refused")
    with attach(model, replace(STREAMING, rerotate=False)):
        model(torch.tensor([[5, 6, 7]]))


def test_what_is_kept_can_be_copied_where_gradients_are_on(llama):
    with attach(llama, STREAMING):
        output = llama(torch.tensor([[5, 6, 7] * 10]))
        output = llama(torch.tensor([[5, 6, 7] * 3]), past_key_values=output.past_key_values)
        output = llama(torch.tensor([[5]]), past_key_values=output.past_key_values)
        assert not output.past_key_values.layers[0].slots.keys_SD.requires_grad
        copy.deepcopy(output.past_key_values)


def test_a_saved_context_says_how_its_positions_are_counted(llama, tmp_path):
    for rerotate in (True, False):
        with torch.no_grad(), attach(llama, replace(STREAMING, rerotate=rerotate)):
            save_cache(llama(torch.tensor([[5, 6, 7] * 10])).past_key_values, tmp_path / "kept")
        with (
            attach(llama, replace(STREAMING, rerotate=not rerotate)) as attached,
            pytest.raises(UserError, match=f"set rerotate to {rerotate}"),
        ):
            load_cache(tmp_path / "kept", attached)
        with attach(llama, replace(STREAMING, rerotate=rerotate)) as attached:
            assert load_cache(tmp_path / "kept", attached).get_seq_length() == 30


def test_scores_that_go_by_places_in_the_text_are_refused(llama):
    for name in ("kvzip", "expected_attention"):
        with pytest.raises(UserError, match="rerotate moves keys"):
            replace(EVICTION[name], rerotate=True)
    reading = Reading(llama)
    reading.read([5, 6, 7, 8, 9])
    with pytest.raises(ValueError, match="leave rerotate out"):
        reading.rows([STREAMING])
