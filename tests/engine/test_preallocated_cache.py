import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from etude.engine.cache import PreallocatedLayer, cache_argument, preallocated_cache, select_rows


def states(batch, length, seed):
    return torch.randn(2, batch, 2, length, 4, generator=torch.Generator().manual_seed(seed)).unbind(0)


@pytest.mark.parametrize("room_tokens", [0, 3, 200])
def test_a_preallocated_layer_holds_what_a_concatenating_one_holds(room_tokens):
    ours, theirs = PreallocatedLayer(), DynamicLayer()
    ours.room_tokens = room_tokens
    rows, seed = 3, 0
    for lengths, order in (((5, 1, 1, 70), [2, 0, 0, 1]), ((1, 2), [3, 1]), ((1, 1, 1), [0, 1])):
        for length in lengths:
            seed += 1
            for layer in (ours, theirs):
                layer.update(*states(rows, length, seed))
            assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
            assert ours.get_seq_length() == theirs.get_seq_length()
        for layer in (ours, theirs):
            layer.reorder_cache(torch.tensor(order))
        rows = len(order)
        assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)


def test_updates_within_the_room_do_not_move_the_store():
    layer = PreallocatedLayer()
    layer.update(*states(2, 5, 0))
    layer.room_tokens = 4
    layer.reorder_cache(torch.tensor([0, 1]))
    place = layer.key_store.data_ptr()
    for step in range(4):
        layer.update(*states(2, 1, step))
    assert layer.key_store.data_ptr() == place


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral-window", "gemma3"])
def test_selecting_rows_leaves_the_source_as_it_is(model_of, family):
    model = model_of(family)
    tokens_BT = torch.randint(4, 260, (3, 9), generator=torch.Generator().manual_seed(0))
    source = preallocated_cache(model.config)
    with torch.inference_mode():
        model(input_ids=tokens_BT, **{cache_argument(model): source})
        before = [(layer.keys.clone(), layer.values.clone()) for layer in source.layers]
        chosen = select_rows(source, torch.tensor([2, 2, 0, 1]), 8)
        for _ in range(8):
            model(input_ids=tokens_BT[[0, 1, 2, 0], :1], **{cache_argument(model): chosen})
    for layer, (keys, values) in zip(source.layers, before, strict=True):
        assert torch.equal(layer.keys, keys) and torch.equal(layer.values, values)
    assert source.get_seq_length() == 9
    assert chosen.get_seq_length() == 17


def test_selecting_rows_of_a_hybrid_model_leaves_its_states_as_they_are(model_of):
    model = model_of("lfm2")
    source = preallocated_cache(model.config)
    tokens_BT = torch.randint(4, 260, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        model(input_ids=tokens_BT, **{cache_argument(model): source})
        first, second = (select_rows(source, torch.tensor([1, 0, 1]), 4) for _ in range(2))
        logits = [model(input_ids=tokens_BT[[1, 0, 1], :1], **{cache_argument(model): cache}).logits for cache in (first, second)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral-window", "gemma3"])
def test_a_model_computes_the_same_with_it_as_with_transformers_cache(model_of, family):
    model = model_of(family)
    tokens_BT = torch.randint(4, 260, (2, 12), generator=torch.Generator().manual_seed(0))
    ours, theirs = preallocated_cache(model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        for part in tokens_BT.split([7, 1, 1, 3], dim=1):
            logits = [model(input_ids=part, **{cache_argument(model): cache}).logits for cache in (ours, theirs)]
            assert torch.equal(*logits)
