"""A policy on a model: nothing changes where all is kept, what is kept is what is read, and the model is left as it was."""

import copy
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from conftest import make_model
from transformers import (
    AttentionInterface,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DogeConfig,
    DogeForCausalLM,
    DynamicCache,
    Gemma3nForCausalLM,
    Gemma3nTextConfig,
)
from transformers.masking_utils import AttentionMaskInterface

from etude.errors import UserError
from etude.kv_cache.attach import attach
from etude.kv_cache.evicting_layer import EvictingCacheLayer
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.policies import EVICTION, POLICIES
from etude.kv_cache.scores.criticalkv import CriticalKV
from etude.kv_cache.scores.kvzip import KVzip
from etude.kv_cache.scores.snapkv import SnapKV
from etude.kv_cache.scores.streaming_llm import StreamingLLM

EVERYTHING = EvictionPolicy(StreamingLLM())
FAMILIES = ["llama", "qwen2", "qwen3", "qwen3-moe", "lfm2", "mistral-window", "gemma3", "gpt2"]
MANAGED = [family for family in FAMILIES if family != "mistral-window"]  # whose layers all have windows


def tokens(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of random tokens with padding on the left, and their mask."""
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    ids, mask = torch.zeros(len(lengths), longest, dtype=torch.long), torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, longest - length :] = torch.randint(4, 250, (length,), generator=draw)
        mask[row, longest - length :] = 1
    return ids, mask


def generated(model, ids, mask, n=24, **rest):
    found = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=n,
        min_new_tokens=n,
        do_sample=False,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
        **rest,
    )
    return found, torch.stack(found.logits, 1)


def slot_layers(cache) -> list[EvictingCacheLayer]:
    return [layer for layer in cache.layers if isinstance(layer, EvictingCacheLayer)]


def kept_positions(cache) -> list[list[list[list[int]]]]:
    """By layer, row and head."""
    every = [layer.slots for layer in slot_layers(cache)]
    return [[[part.position_T.tolist() for part in slots.row(row)] for row in range(slots.rows)] for slots in every]


@contextmanager
def full_cache_that_sees(model, kept, pads) -> Iterator[None]:
    """The slow reference: plain softmax over a full cache, in which a head sees of a row's past what is in `kept`, and what is new.

    `kept`: by layer, row and head the places of tokens; `pads`: columns of padding before each row.
    """

    def attend(module, query, key, value, attention_mask, scaling, **_):
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).mT * scaling
        length, total = query.shape[2], key.shape[2]
        allowed = torch.ones(length, total, dtype=torch.bool).tril(total - length).expand(*scores.shape).clone()
        for row, heads in enumerate(kept[module.layer_idx]):
            allowed[row, :, :, : pads[row]] = False
            for head, places in enumerate(heads):
                past = torch.zeros(total - length, dtype=torch.bool)
                past[torch.tensor(places, dtype=torch.long) + pads[row]] = True
                allowed[row, head * groups : (head + 1) * groups, :, : total - length] &= past
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
        return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2), None

    own = model.config._attn_implementation
    AttentionInterface.register("slow_reference", attend)
    model.config._attn_implementation_internal = "slow_reference"
    try:
        yield
    finally:
        model.config._attn_implementation_internal = own
        AttentionInterface._global_mapping.pop("slow_reference")


# ---------------------------------------------------------------------- identity


@pytest.mark.parametrize("family", MANAGED)
def test_a_policy_that_keeps_all_gives_the_models_own_logits_with_padding_and_without(model_of, family):
    model, (ids, mask) = model_of(family), tokens(40, 23)
    expected, own = generated(model, ids, mask)
    for policy in (EVERYTHING, replace(EVICTION["snapkv"], keep_ratio=1.0), replace(EVICTION["h2o"], budget_tokens=1000)):
        with attach(model, policy):
            found, logits = generated(model, ids, mask)
        torch.testing.assert_close(logits, own, atol=1e-4, rtol=1e-5)
        assert torch.equal(found.sequences, expected.sequences)


@pytest.mark.parametrize("name", EVICTION)
def test_keep_ratio_1_is_the_full_cache_under_every_policy(llama, name):
    ids, mask = tokens(40, 23)
    _, own = generated(llama, ids, mask)
    with attach(llama, replace(EVICTION[name], keep_ratio=1.0)):
        _, logits = generated(llama, ids, mask)
    torch.testing.assert_close(logits, own, atol=1e-5, rtol=1e-5)


def test_a_pass_without_a_cache_is_full_attention(llama):
    ids, mask = tokens(40, 23)
    expected = llama(ids, attention_mask=mask, use_cache=False).logits
    with attach(llama, replace(EVICTION["streaming"], budget_tokens=4)):
        assert torch.equal(llama(ids, attention_mask=mask, use_cache=False).logits, expected)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("pyramid", {"slope": 1.0}),
        ("ada_snapkv", {"least_share": 1.0}),
        ("critical_snapkv", {"score": CriticalKV(SnapKV(), first_share=1.0)}),
    ],
)
def test_what_is_built_on_a_policy_is_that_policy_at_one_setting(llama, name, changes):
    ids, mask = tokens(80, 33)
    found = []
    for policy in (EVICTION["snapkv"], replace(EVICTION[name], **changes), EVICTION[name]):
        with torch.no_grad(), attach(llama, replace(policy, keep_ratio=0.3)):
            found.append(kept_positions(llama(ids, attention_mask=mask).past_key_values))
    assert found[0] == found[1] != found[2]


# ---------------------------------------------------------------------- what is kept is what is read


@pytest.mark.parametrize("name", EVICTION)
def test_every_step_reads_what_was_kept_and_nothing_else(llama, name):
    """Prompt, a second prompt and single tokens, with left padding, against a full cache with a mask by row, layer and head."""
    llama = llama.double()  # so that rounding is no part of it
    ids, mask = tokens(60, 41)
    new = torch.randint(4, 250, (2, 30), generator=torch.Generator().manual_seed(1))
    pieces = [ids, new[:, :9], *new[:, 9:].split(1, 1)]
    reference, policy = copy.deepcopy(llama), replace(EVICTION[name], keep_ratio=0.3, every_tokens=5)
    ours, full = DynamicCache(config=llama.config), DynamicCache(config=llama.config)
    kept: list[list[list[list[int]]]] = [[[[], []]] * 2] * 2
    with torch.no_grad(), attach(llama, policy):
        for number, piece in enumerate(pieces):
            mask = torch.cat([mask, torch.ones_like(piece)], 1) if number else mask
            found = llama(piece, attention_mask=mask, past_key_values=ours).logits
            with full_cache_that_sees(reference, kept, pads=[0, 19]):
                expected = reference(piece, attention_mask=mask, past_key_values=full).logits
            is_real = mask[:, -piece.shape[1] :].bool()
            torch.testing.assert_close(found[is_real], expected[is_real], atol=1e-5, rtol=1e-5)
            kept = kept_positions(ours)
    unmasked = reference(torch.cat(pieces, 1), attention_mask=mask).logits[:, -1:]
    assert (found - unmasked).abs().max() > 0.01, "nothing was left out, so nothing was shown"


@pytest.mark.parametrize("name", EVICTION)
def test_rows_of_a_batch_are_what_they_are_alone(llama, name):
    ids, mask = tokens(50, 31, 9)
    with attach(llama, replace(EVICTION[name], keep_ratio=0.4, every_tokens=4)):
        together, logits = generated(llama, ids, mask, n=20)
        for row, length in enumerate((50, 31, 9)):
            alone, own = generated(llama, ids[row : row + 1, -length:], mask[row : row + 1, -length:], n=20)
            torch.testing.assert_close(logits[row : row + 1], own, atol=1e-4, rtol=1e-4)
            of_row = [[heads[row]] for heads in kept_positions(together.past_key_values)]
            assert of_row == kept_positions(alone.past_key_values)


def test_right_padding_and_holes_are_no_tokens(llama):
    ids, _ = tokens(30)
    holes = torch.ones_like(ids)
    holes[0, 5:9] = holes[0, 27:] = 0
    own = holes[0].nonzero()[:, 0]
    places = (holes.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad(), attach(llama, replace(EVICTION["snapkv"], keep_ratio=0.5)):
        found = llama(ids, attention_mask=holes, position_ids=places, past_key_values=(cache := DynamicCache(config=llama.config))).logits
        alone = llama(ids[:, own], past_key_values=(other := DynamicCache(config=llama.config))).logits
    torch.testing.assert_close(found[:, own], alone, atol=1e-5, rtol=1e-5)
    assert kept_positions(cache) == kept_positions(other)


# ---------------------------------------------------------------------- budgets and memory


@pytest.mark.parametrize("name", EVICTION)
@pytest.mark.parametrize("budget", [1, 7, 20, 0.25, 0.9])
def test_a_prompt_leaves_exactly_its_budget(llama, name, budget):
    ids, mask = tokens(80, 33, 6)
    policy = replace(EVICTION[name], **{"budget_tokens" if isinstance(budget, int) else "keep_ratio": budget})
    with torch.no_grad(), attach(llama, policy):
        cache = llama(ids, attention_mask=mask).past_key_values
    for row, seen in enumerate((80, 33, 6)):
        expected = min(policy.budget_tokens or max(1, round((policy.keep_ratio or 1) * seen)), seen)
        counts = [layer.slots.count_BH[row].tolist() for layer in slot_layers(cache)]
        assert sum(map(sum, counts)) == expected * 4  # 2 layers of 2 heads
        if policy.layers == "uniform":
            assert [sum(heads) for heads in counts] == [expected * 2] * 2
        if not policy.spreads:
            assert all(heads[0] == heads[1] for heads in counts)


@pytest.mark.parametrize("name", [name for name in EVICTION if name != "kvzip"])  # which drops of prompts alone
def test_a_long_generation_stays_within_its_budget(llama, name):
    ids, mask = tokens(12, 5)
    with attach(llama, replace(EVICTION[name], budget_tokens=24, every_tokens=6)):
        found, _ = generated(llama, ids, mask, n=100)
    count_B = sum(layer.slots.count_BH.sum(1) for layer in slot_layers(found.past_key_values))
    assert count_B.min() >= 24 * 4 and count_B.max() < (24 + 6) * 4
    assert found.past_key_values.get_seq_length() == 12 + 99


def test_every_tokens_0_drops_nothing_while_generating(llama):
    ids, mask = tokens(40)
    with attach(llama, replace(EVICTION["streaming"], budget_tokens=10, every_tokens=0)):
        found, _ = generated(llama, ids, mask, n=51)
    assert [layer.slots.count_BH.tolist() for layer in slot_layers(found.past_key_values)] == [[[10 + 50] * 2]] * 2


def test_a_prompt_in_chunks_is_never_held_beyond_budget_and_chunk(llama, monkeypatch):
    ids, mask = tokens(200)
    most = []
    own = EvictingCacheLayer._with_new
    monkeypatch.setattr(EvictingCacheLayer, "_with_new", lambda *given: [most.append(len(part)) or part for part in own(*given)])
    with attach(llama, replace(EVICTION["snapkv"], budget_tokens=32)):
        found, _ = generated(llama, ids, mask, n=2, prefill_chunk_size=16)
    assert max(most) == 32 + 16
    assert {len(places) for layer in kept_positions(found.past_key_values) for row in layer for places in row} == {33}


@pytest.mark.parametrize(("family", "lengths"), [("llama", (40, 23)), ("lfm2", (40, 40)), ("gemma3", (40, 40))])
@pytest.mark.parametrize("chunk", [100, 16])
def test_a_replay_keeps_what_is_read_most_when_the_text_comes_again_and_leaves_windows_and_states(model_of, family, lengths, chunk):
    """Against attention weights of the model's own over the text twice, row by row, each chunk for itself."""
    model, (ids, mask) = model_of(family), tokens(*lengths)
    reference = copy.deepcopy(model)
    reference.set_attn_implementation("eager")
    score = KVzip(ask=(7, 8), chunk_tokens=chunk)
    with torch.no_grad(), attach(model, EvictionPolicy(score, budget_tokens=9, layers="all")):
        kept = kept_positions(model(ids, attention_mask=mask).past_key_values)
    for row, length in enumerate(lengths):
        own, most = ids[row, -length:], torch.zeros(len(kept), 2, length)
        for first in range(0, length, chunk):
            again = torch.cat([own, torch.tensor([7, 8]), own[first : first + chunk]])
            found = reference(again[None], output_attentions=True).attentions[-len(kept) :]  # of layers that keep everything
            read = torch.stack([weights[0, :, length:, :length].amax(1).unflatten(0, (2, -1)).amax(1) for weights in found])
            most = torch.maximum(most, read)
        most[:, :, :4] = 9.0
        least = most.flatten().sort(descending=True).values[9 * 2 * len(kept) - 1]
        expected = [[(head >= least).nonzero()[:, 0].tolist() for head in layer] for layer in most]
        assert [layer[row] for layer in kept] == expected
    assert len({len(places) for layer in kept for row in layer for places in row}) > 1
    with torch.no_grad(), attach(model, EvictionPolicy(score, budget_tokens=200, layers="all")):  # it is replayed, and all is kept
        cache = model(ids[:1]).past_key_values
        found = torch.cat([model(ids[:1, place : place + 1], past_key_values=cache).logits for place in range(3)], 1)
    torch.testing.assert_close(found, model(torch.cat([ids[:1], ids[:1, :3]], 1)).logits[:, 40:], atol=1e-5, rtol=1e-5)


def test_a_replay_is_refused_where_it_would_leave_traces(model_of, llama):
    ids, mask = tokens(30, 20)
    for family, kind in (("gemma3", "Sliding"), ("lfm2", "LinearAttention")):
        with attach(model_of(family), replace(EVICTION["kvzip"], keep_ratio=0.5)) as attached, pytest.raises(UserError, match=kind):
            attached.decoder(ids, attention_mask=mask)
    with attach(llama, replace(EVICTION["kvzip"], keep_ratio=0.5)), pytest.raises(UserError, match="give input_ids"):
        llama(inputs_embeds=llama.model.embed_tokens(ids))
    with pytest.raises(UserError, match="set layers to 'all'"):
        EvictionPolicy(KVzip(), layers="pyramid")


def bytes_of_tensors() -> int:
    gc.collect()
    storages = [each.untyped_storage() for each in gc.get_objects() if type(each) is torch.Tensor]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("name", ["streaming", "snapkv", "ada_snapkv", "pyramid", "h2o", "kvzip"])
def test_memory_is_really_given_back(model_of, name):
    """Counted over all tensors that are alive, with heads and layers that keep different numbers too."""
    model = model_of("llama", max_position_embeddings=2048)
    ids, mask = tokens(1500, 900)

    def held(policy: EvictionPolicy) -> tuple[int, int]:
        before = bytes_of_tensors()
        with torch.no_grad(), attach(model, policy) as attached:
            cache = model(ids, attention_mask=mask).past_key_values
            assert bytes_of_tensors() - before == attached.bytes
            return attached.bytes, sum(layer.slots.count_BH.sum() for layer in slot_layers(cache))

    held(EVERYTHING)  # what a first pass keeps for good
    (full, slots), (small, fewer) = held(EVERYTHING), held(replace(EVICTION[name], keep_ratio=0.1))
    assert slots == 2 * 2 * (1500 + 900) and fewer == slots / 10
    assert small < 0.2 * full


# ---------------------------------------------------------------------- ways to generate


def test_beams_and_samples_and_later_turns_go_through_the_policy(llama):
    ids, mask = tokens(30, 22)
    rest = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 12, "pad_token_id": 0, "num_beams": 3, "do_sample": False}
    own = llama.generate(**rest)
    with attach(llama, EVERYTHING):
        assert torch.equal(llama.generate(**rest), own)
    with attach(llama, replace(EVICTION["ada_snapkv"], budget_tokens=12, every_tokens=3)):
        together = llama.generate(**rest)
        for row, length in enumerate((30, 22)):
            alone = llama.generate(**rest | {"input_ids": ids[row : row + 1, -length:], "attention_mask": mask[row : row + 1, -length:]})
            assert torch.equal(together[row, 30:][: alone.shape[1] - length], alone[0, length:])


def test_a_second_prompt_is_cut_down_too(llama):
    ids, mask = tokens(40)
    with attach(llama, replace(EVICTION["snapkv"], budget_tokens=16, every_tokens=4)):
        first, _ = generated(llama, ids, mask, n=5)
        longer = torch.cat([first.sequences, tokens(50, seed=3)[0]], 1)
        second, _ = generated(llama, longer, torch.ones_like(longer), n=1, past_key_values=first.past_key_values)
    assert [layer.slots.count_BH.tolist() for layer in slot_layers(second.past_key_values)] == [[[16, 16]]] * 2
    assert second.past_key_values.get_seq_length() == 40 + 5 + 50


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_full_cache_from_outside_that_knows_of_no_windows_is_gone_on_with(model_of, family):
    model, (ids, mask) = model_of(family), tokens(40, 23)
    with torch.no_grad():
        cache = model(ids, attention_mask=mask, past_key_values=DynamicCache()).past_key_values
        new, longer = torch.full((2, 1), 7), torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
        expected = model(new, attention_mask=longer, past_key_values=copy.deepcopy(cache)).logits
        with attach(model, EVERYTHING):
            found = model(new, attention_mask=longer, past_key_values=cache).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_tokens_can_be_taken_back(llama):
    ids, mask = tokens(80, 63)
    policy = replace(EVICTION["key_diff"], budget_tokens=20, every_tokens=0, by_head=True)
    with torch.no_grad(), attach(llama, policy) as attached:

        def behind(cache, first: int, count: int):
            mask_of = torch.cat([mask, torch.ones(2, count, dtype=torch.long)], 1)
            given = [(ids[:, -1 - first - place, None], mask_of[:, : 81 + place]) for place in range(count)]
            return [llama(one, attention_mask=seen, past_key_values=cache).logits for one, seen in given]

        cache = llama(ids, attention_mask=mask).past_key_values
        untouched, before = copy.deepcopy(cache), attached.bytes
        for count in (3, 40):  # few are filled again, many are given back
            behind(cache, 0, count)
            cache.crop(-count)
            assert cache.get_seq_length() == 80
        assert attached.bytes == before
        counts = slot_layers(cache)[0].slots.count_BH
        assert len({*counts.ravel().tolist()}) > 1, "rows and heads keep different numbers"
        torch.testing.assert_close(behind(cache, 5, 3), behind(untouched, 5, 3), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", POLICIES)
def test_drafts_are_refused_where_not_everything_is_read(llama, name):
    """Drafts are read in one pass as a prompt is, where a policy drops and reads otherwise than token by token."""
    ids, mask = tokens(40)
    draft = {"prompt_lookup_num_tokens": 4}
    with attach(llama, replace(POLICIES[name], keep_ratio=0.5)):
        with pytest.raises(UserError, match=r"drafts .*prompt_lookup_num_tokens.*: generate without them, or with keep_ratio 1"):
            generated(llama, ids, mask, n=4, **draft)
        generated(llama, ids, mask, n=4)
    assert "_get_candidate_generator" not in vars(llama)
    with attach(llama, replace(POLICIES[name], keep_ratio=1)):
        found = llama.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0, **draft)
    assert torch.equal(found, llama.generate(ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0))


def test_a_policy_is_attached_by_its_name(llama):
    ids, mask = tokens(40)
    with attach(llama, "snapkv", keep_ratio=0.5):
        by_name, _ = generated(llama, ids, mask)
    with attach(llama, replace(EVICTION["snapkv"], keep_ratio=0.5)):
        by_object, _ = generated(llama, ids, mask)
    with attach(llama, "full"):
        full, _ = generated(llama, ids, mask)
    assert torch.equal(by_name.sequences, by_object.sequences)
    assert kept_positions(by_name.past_key_values) == kept_positions(by_object.past_key_values) != kept_positions(full.past_key_values)
    for name, options, said in (
        ("snapkw", {}, r"unknown policy 'snapkw'.*snapkv"),
        ("full", {"keep_ratio": 0.5}, "the full cache has no budget"),
    ):
        with pytest.raises(UserError, match=said), attach(llama, name, **options):
            pass
    with attach(llama, "lazy", keep_ratio=0.5), pytest.raises(UserError, match=r"sample under it with kv_cache\.policy lazy"):
        generated(llama, ids, mask)


def test_layers_with_windows_and_states_are_left_alone(model_of):
    for family, kinds in (
        ("gemma3", ["DynamicSlidingWindowLayer", "EvictingCacheLayer"]),
        ("lfm2", ["LinearAttentionLayer", "EvictingCacheLayer"]),
    ):
        model, (ids, mask) = model_of(family), tokens(40, 23)
        with attach(model, replace(EVICTION["snapkv"], keep_ratio=0.3)):
            found, logits = generated(model, ids, mask)
            assert [type(layer).__name__ for layer in found.past_key_values.layers] == kinds
            _, own = generated(model, ids[1:, -23:], mask[1:, -23:])
        torch.testing.assert_close(logits[1:], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["lfm2", "gemma3"])
@pytest.mark.parametrize("name", EVICTION)
def test_every_policy_keeps_its_budget_of_a_hybrid(model_of, family, name):
    model, (ids, _) = model_of(family), tokens(40, 40)
    with torch.no_grad(), attach(model, replace(EVICTION[name], keep_ratio=0.5)):
        cache = model(ids).past_key_values
        (layer,) = kept_positions(cache)
        assert [sum(map(len, row)) for row in layer] == [20 * len(layer[0])] * 2
        model(ids[:, :1], past_key_values=cache)


# ---------------------------------------------------------------------- the model is left as it was


def everything_about(model) -> tuple:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    attributes = [sorted(vars(module)) for module in model.modules()]
    tables = sorted(AttentionInterface._global_mapping), sorted(AttentionMaskInterface._global_mapping)
    return weights, hooks, attributes, tables, model.config.to_dict(), model.config._attn_implementation


def assert_same(found: tuple, expected: tuple) -> None:
    assert all(torch.equal(found[0][name], value) for name, value in expected[0].items())
    assert found[1:] == expected[1:]


def test_the_model_is_what_it_was_behind_the_block_and_behind_an_exception(llama):
    ids, mask = tokens(40, 23)
    before, (_, own) = everything_about(llama), generated(llama, ids, mask)
    policy = replace(EVICTION["snapkv"], keep_ratio=0.3)
    with attach(llama, policy):
        assert sum(everything_about(llama)[1]) > 0
        _, first = generated(llama, ids, mask)
    assert_same(everything_about(llama), before)
    with pytest.raises(RuntimeError, match="in the middle"), attach(llama, policy):
        llama.model.layers[1].mlp.register_forward_hook(fail)
        try:
            llama(ids)
        finally:
            llama.model.layers[1].mlp._forward_hooks.clear()
    assert_same(everything_about(llama), before)
    with attach(llama, policy):
        assert torch.equal(generated(llama, ids, mask)[1], first), "a second time is like the first"
    assert torch.equal(generated(llama, ids, mask)[1], own)


def fail(*_: object) -> None:
    raise RuntimeError("in the middle")


def test_two_models_have_policies_of_their_own(model_of):
    one, two, (ids, mask) = model_of("llama"), model_of("qwen2"), tokens(40)
    with attach(one, replace(EVICTION["streaming"], budget_tokens=8)), attach(two, replace(EVICTION["streaming"], budget_tokens=12)):
        first, second = (generated(model, ids, mask, n=1)[0].past_key_values for model in (one, two))
    assert [layer.slots.count_BH.max() for cache in (first, second) for layer in slot_layers(cache)] == [8, 8, 12, 12]


# ---------------------------------------------------------------------- wrong input


def test_a_cache_outlives_its_policy_only_by_a_clear_sentence(llama):
    ids, mask = tokens(40)
    with attach(llama, replace(EVICTION["streaming"], budget_tokens=8)):
        cache = llama(ids, attention_mask=mask).past_key_values
        with pytest.raises(UserError, match="has a policy already"), attach(llama, EVERYTHING):
            pass
    with pytest.raises(UserError, match="inside the `with attach"):
        llama(ids[:, :1], past_key_values=cache)
    with attach(llama, EVERYTHING), pytest.raises(UserError, match="inside the `with attach"):
        llama(ids[:, :1], past_key_values=cache)


def test_attention_that_can_not_be_reached_is_said_in_a_sentence(llama, monkeypatch):
    ids, mask = tokens(20)
    module = type(llama.model.layers[0].self_attn)

    def forward(self, hidden_states, past_key_values=None, **_):
        keys = self.k_proj(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        past_key_values.update(keys, keys, self.layer_idx)
        return hidden_states, None

    monkeypatch.setattr(module, "forward", forward)
    for layers in (2, 1):
        llama.config.num_hidden_layers = layers
        with pytest.raises(UserError, match="does not go through transformers' attention functions"), attach(llama, EVERYTHING):
            llama(ids, attention_mask=mask)


SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}


def unusual() -> dict:
    """Models whose attention reads something else than what full caches hold, of which a policy must say so."""
    latent = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
        "first_k_dense_replace": 2,
    }
    experts = {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 8}
    kinds = {"layer_types": ["full_attention"] * 4, "num_kv_shared_layers": 2, "num_hidden_layers": 4, "vocab_size_per_layer_input": 260}
    return {
        "latent": lambda: DeepseekV3ForCausalLM(DeepseekV3Config(**SMALL | latent | experts | {"num_key_value_heads": 4})),
        "shared": lambda: Gemma3nForCausalLM(
            Gemma3nTextConfig(
                **SMALL | kinds, hidden_size_per_layer_input=8, head_dim=8, laurel_rank=4, activation_sparsity_pattern=[0.0] * 4
            )
        ),
        "own mask": lambda: DogeForCausalLM(DogeConfig(**SMALL)),
        "windows alone": lambda: make_model("mistral-window"),
        "states alone": lambda: make_model("mamba"),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, r"does not know|can't keep") for name in ("latent", "shared", "own mask")),
        ("windows alone", "no layer of this cache can be kept small"),
        ("states alone", "can't be found|no layer"),
    ],
)
def test_models_that_read_something_else_than_full_caches_are_refused_and_go_on_as_before(name, message):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = unusual()[name]().eval()
    ids, _ = tokens(20)
    with torch.no_grad():
        expected = model(ids).logits
        with pytest.raises(UserError, match=message), attach(model, EVERYTHING):
            model(ids)
        torch.testing.assert_close(model(ids).logits, expected)


def test_slots_to_spare_hold_nothing_that_could_be_read(llama):
    ids, mask = tokens(20, 20)
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with what is no number
    try:
        with torch.no_grad(), attach(llama, EVERYTHING):
            cache = llama(ids, attention_mask=mask).past_key_values
            for step in ([1, 0], [1, 1]):
                mask = torch.cat([mask, torch.tensor(step)[:, None]], 1)
                found = llama(ids[:, :1], attention_mask=mask, past_key_values=cache).logits
        assert not found.isnan().any()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", POLICIES)
def test_policies_work_in_half_precision(llama, name, dtype):
    model, (ids, mask) = llama.to(dtype), tokens(60, 41)
    with torch.no_grad(), attach(model, replace(POLICIES[name], keep_ratio=0.5)):
        found, logits = generated(model, ids, mask, n=20)
    assert not logits.isnan().any()
    held = [layer.slots.keys_SD for layer in slot_layers(found.past_key_values)]
    assert all(store.dtype == dtype for store in held)


def test_layers_that_were_copied_go_their_own_way_row_by_row(llama):
    """As the engine copies them: layers of their own, whose parts are shared until they change."""
    ids, mask = tokens(30, 22)
    with torch.no_grad(), attach(llama, replace(EVICTION["snapkv"], budget_tokens=12)):
        cache = llama(ids, attention_mask=mask).past_key_values
        other = copy.copy(cache)
        other.layers = [copy.copy(layer) for layer in cache.layers]
        longer = torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], 1)
        one, two = (llama(ids[:, :3], attention_mask=longer, past_key_values=each).logits for each in (cache, other))
    torch.testing.assert_close(one, two)
    assert cache.layers[0].slots.rows == other.layers[0].slots.rows == 2


def test_queries_from_before_a_policy_are_unknown_not_made_up(llama):
    ids, _ = tokens(80)
    with torch.no_grad():
        cache = llama(ids).past_key_values
        with attach(llama, replace(EVICTION["snapkv"], budget_tokens=24)):
            llama(ids[:, :5], past_key_values=cache)
            layer = slot_layers(cache)[0]
            assert (
                layer.memory.remembered_B.tolist() == [5]
                and layer.memory.last(0, [own.keys_TD for own in layer.slots.row(0)]).shape[2] == 5
            )


def test_a_policy_does_not_learn_and_does_not_crop_forwards(llama):
    ids, _ = tokens(20)
    with attach(llama, EVERYTHING):
        llama.train()
        with pytest.raises(UserError, match=r"take model.eval\(\)"):
            llama(ids, labels=ids)
        llama.eval()
        cache = llama(ids).past_key_values
        with pytest.raises(ValueError, match="below 0"):
            cache.crop(10)
        empty = EvictingCacheLayer(None, EVERYTHING, 0, 1)
        empty.batch_select_indices(torch.tensor([0]))
        assert empty.slots is None and empty.get_seq_length() == 0


def test_wrong_input_is_said_in_a_sentence(llama):
    ids, _ = tokens(20)
    with attach(llama, EVERYTHING):
        with pytest.raises(UserError, match="attention_mask as \\[rows, tokens\\]"):
            llama(ids, attention_mask=torch.zeros(1, 1, 20, 20))
        with pytest.raises(UserError, match="a prompt has no token"):
            llama(ids[:, :0])
        assert llama(ids).logits.shape == (1, 20, 260)
    for changes, message in (
        ({"budget_tokens": 0}, "budget_tokens must be at least 1, got 0"),
        ({"keep_ratio": 1.5}, "keep_ratio must be above 0 and at most 1"),
        ({"keep_ratio": 0.5, "budget_tokens": 8}, "leave one of them out"),
        ({"sinks": -1}, "sinks must be at least 0"),
        ({"slope": 0.5}, "slope must be at least 1"),
        ({"least_share": 2.0}, "least_share must be in"),
    ):
        with pytest.raises(UserError, match=message):
            replace(EVERYTHING, **changes)
