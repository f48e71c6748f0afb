"""A compressed context in a file is what it was."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from etude.errors import UserError
from etude.kv_cache.attach import attach
from etude.kv_cache.cache_io import load_cache, save_cache
from etude.kv_cache.policies import EVICTION


@pytest.mark.parametrize("name", EVICTION)
def test_a_saved_context_goes_on_as_if_it_had_not_been_away(llama, name, tmp_path):
    policy = replace(EVICTION[name], budget_tokens=18, every_tokens=4)
    draw = torch.Generator().manual_seed(0)
    ids, mask, new = torch.randint(4, 250, (2, 50), generator=draw), torch.ones(2, 50), torch.randint(4, 250, (2, 20), generator=draw)
    mask[1, :20] = 0
    with torch.no_grad():
        with attach(llama, policy) as attached:
            cache = llama(ids, attention_mask=mask).past_key_values
            logits_of(llama, cache, mask, new[:, :2])
            mask = torch.cat([mask, torch.ones(2, 2)], 1)
            save_cache(cache, tmp_path / "context")
            expected = logits_of(llama, cache, mask, new)
            held = attached.bytes
        assert (tmp_path / "context").stat().st_size < held + 20_000 and not list(tmp_path.glob("*.partial"))
        with attach(llama, policy) as attached:
            loaded = load_cache(tmp_path / "context", attached)
            torch.testing.assert_close(logits_of(llama, loaded, mask, new), expected, atol=0, rtol=0)


def logits_of(model, cache, mask, new):
    found = []
    for token in new.split(1, 1):
        mask = torch.cat([mask, torch.ones(2, 1)], 1)
        found.append(model(token, attention_mask=mask, past_key_values=cache).logits)
    return torch.cat(found, 1)


def test_what_can_not_be_loaded_is_said_in_a_sentence(llama, model_of, tmp_path):
    ids = torch.randint(4, 250, (1, 50), generator=torch.Generator().manual_seed(0))
    policy, path = replace(EVICTION["key_norm"], budget_tokens=18), tmp_path / "context"
    with torch.no_grad(), attach(llama, policy):
        save_cache(llama(ids).past_key_values, path)
    (tmp_path / "text").write_text("no tensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other")
    with attach(llama, policy) as attached:
        for name, message in (("text", "can't be read"), ("nothing", "can't be read"), ("other", "holds no context")):
            with pytest.raises(UserError, match=message):
                load_cache(tmp_path / name, attached)
    for name in ("snapkv", "expected_attention"):
        with attach(llama, replace(EVICTION[name], budget_tokens=18)) as attached, pytest.raises(UserError, match="under the policy"):
            load_cache(path, attached)
    with (
        attach(model_of("llama", num_hidden_layers=3), policy) as attached,
        pytest.raises(UserError, match="2 layers, but this model has 3"),
    ):
        load_cache(path, attached)
    with attach(model_of("qwen3"), policy) as attached, pytest.raises(UserError, match="2 heads of width 8, but this model has 2 of 16"):
        load_cache(path, attached)
    with attach(llama, replace(EVICTION["h2o"], budget_tokens=18)) as attached, pytest.raises(UserError, match="without the sums"):
        load_cache(path, attached)
    windows = model_of("gemma3")
    with attach(windows, policy), pytest.raises(UserError, match="DynamicSlidingWindowLayer can't be saved"):
        save_cache(windows(ids).past_key_values, path)
