"""Each score against its formula, written out slowly; budgets by hand."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from etude.errors import UserError
from etude.kernels.received import received_for
from etude.kv_cache import attention
from etude.kv_cache.attach import attach
from etude.kv_cache.budgets import chosen, of_layers
from etude.kv_cache.evicting_layer import EvictingCacheLayer
from etude.kv_cache.moments import Moments
from etude.kv_cache.policies import EVICTION
from etude.kv_cache.rotation import Rotation
from etude.kv_cache.score_inputs import ScoreInputs
from etude.kv_cache.scores.criticalkv import CriticalKV
from etude.kv_cache.scores.expected_attention import ExpectedAttention
from etude.kv_cache.scores.h2o import H2O
from etude.kv_cache.scores.key_norm import KeyNorm
from etude.kv_cache.scores.keydiff import KeyDiff
from etude.kv_cache.scores.kvzip import KVzip
from etude.kv_cache.scores.random import Random
from etude.kv_cache.scores.snapkv import SnapKV
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.scores.tova import TOVA
from etude.kv_cache.slots import Segment, Slots

HEADS, GROUP, WIDTH, SEEN = 2, 2, 8, 20


def held_of(model, counts=(12, 9), window=6, moments=None, budget=4, recent=0) -> ScoreInputs:
    """Some slots of 20 tokens, one head with fewer."""
    draw = torch.Generator().manual_seed(0)
    segments = []
    for count in counts:
        position = torch.cat([torch.randperm(SEEN - 1, generator=draw)[: count - 1].sort().values, torch.tensor([SEEN - 1])]).int()
        keys, values = torch.randn(2, count, WIDTH, generator=draw)
        segments.append(Segment(keys, values, position, torch.rand(count, generator=draw)))
    return ScoreInputs.of(
        segments,
        queries_HRQD=torch.randn(HEADS, GROUP, window, WIDTH, generator=draw),
        moments=moments,
        seen=SEEN,
        budget=budget,
        recent=recent,
        scale=WIDTH**-0.5,
        layer=0,
        module=model.model.layers[0].self_attn,
        rotation=Rotation.of(model.model),
    )


def attention_of(held: ScoreInputs, head: int, shared: int, query: int) -> list[float]:
    """What one query reads, slot by slot."""
    place = SEEN - held.queries_HRQD.shape[2] + query
    terms = []
    for key, position, is_there in zip(held.keys_HTD[head], held.position_HT[head].tolist(), held.is_there_HT[head].tolist(), strict=True):
        score = float(key @ held.queries_HRQD[head, shared, query]) / math.sqrt(WIDTH)
        terms.append(math.exp(score) if is_there and position <= place else 0.0)
    return [term / max(sum(terms), 1e-30) for term in terms]


def assert_scores(score, held: ScoreInputs, expected) -> None:
    found = score(held)
    for head in range(HEADS):
        for slot in range(int(held.is_there_HT[head].sum())):
            assert float(found[head, slot]) == pytest.approx(expected(head, slot), rel=1e-4, abs=1e-6)


def test_streaming_keeps_the_last_and_norms_keep_the_short(llama):
    held = held_of(llama)
    assert_scores(StreamingLLM(), held, lambda head, slot: int(held.position_HT[head, slot]))
    assert_scores(KeyNorm(), held, lambda head, slot: -math.sqrt(sum(x * x for x in held.keys_HTD[head, slot].tolist())))


def test_key_difference_is_minus_the_cosine_to_the_mean_direction(llama):
    held = held_of(llama)

    def expected(head, slot):
        own = [key / key.norm() for key, is_there in zip(held.keys_HTD[head], held.is_there_HT[head], strict=True) if is_there]
        mean = sum(own) / len(own)
        return -float(own[slot] @ mean / mean.norm())

    assert_scores(KeyDiff(), held, expected)


def test_last_query_is_one_importance_for_all_heads(llama):
    held = held_of(llama, counts=(12, 12))
    by_head = [[attention_of(held, head, shared, 5) for shared in range(GROUP)] for head in range(HEADS)]
    assert_scores(TOVA(), held, lambda head, slot: sum(by_head[h][r][slot] for h in range(HEADS) for r in range(GROUP)) / 4)


def test_observation_window_sums_over_queries_pools_along_slots_and_leaves_itself_out(llama):
    held = held_of(llama)
    read = [
        [sum(attention_of(held, head, r, q)[slot] for r in range(GROUP) for q in range(6)) / GROUP for slot in range(12)]
        for head in range(HEADS)
    ]
    past = [[value * (held.position_HT[head, slot] < SEEN - 6) for slot, value in enumerate(read[head])] for head in range(HEADS)]
    assert_scores(SnapKV(6, pool=1), held, lambda head, slot: float(past[head][slot]))
    padded = [[0.0, *row, 0.0] for row in past]
    assert_scores(SnapKV(6, pool=3), held, lambda head, slot: float(sum(padded[head][slot : slot + 3]) / 3))


def test_summed_attention_is_what_was_summed_and_by_query_its_mean(llama):
    held = held_of(llama)
    assert_scores(H2O(), held, lambda head, slot: float(held.mass_HT[head, slot]))
    number = SEEN - held.position_HT
    assert_scores(H2O(by_query=True), held, lambda head, slot: float(held.mass_HT[head, slot] / number[head, slot]))


def test_expected_attention_is_the_softmax_of_what_a_normal_query_gives_on_average(llama):
    """Against drawn queries: E exp(q k) of a normal q is exp(m k + k S k / 2), so importance is proportional to the mean of exp(q k)."""
    draw = torch.Generator().manual_seed(1)
    queries = torch.randn(HEADS * GROUP, 200, WIDTH, generator=draw) * 0.3 + 0.2
    held = held_of(llama, moments=Moments.of(queries), counts=(12, 12))
    score = ExpectedAttention(future=1, by_value=False, sinks=0)
    mean, covariance = Moments.of(queries).mean_ND, Moments.of(queries).covariance_NDD
    torch.testing.assert_close(mean, queries.double().mean(1))
    torch.testing.assert_close(covariance[0], torch.cov(queries[0].double().T, correction=0))
    drawn = torch.stack([torch.distributions.MultivariateNormal(m, s).sample((200_000,)) for m, s in zip(mean, covariance, strict=True)])
    turned = held.rotation.mean_turned(held.module, drawn.float(), torch.tensor([SEEN])).unflatten(0, (HEADS, GROUP))
    weight = (torch.einsum("hrqd,htd->hrqt", turned, held.keys_HTD) / math.sqrt(WIDTH)).exp().mean(2)
    expected = (weight / weight.sum(-1, keepdim=True)).mean(1)
    torch.testing.assert_close(score(held), expected, rtol=0.02, atol=0)
    torch.testing.assert_close(ExpectedAttention(future=1, sinks=0)(held), score(held) * held.values_HTD.norm(dim=-1))
    without = ExpectedAttention(future=1, by_value=False)(held)
    per_head = weight * (held.position_HT >= 4)[:, None]
    torch.testing.assert_close(without, (per_head / per_head.sum(-1, keepdim=True)).mean(1), rtol=0.02, atol=1e-9)


@torch.no_grad()
def test_a_value_weighs_by_what_it_adds_to_the_output(llama):
    held = held_of(llama, budget=4)
    base, weight = H2O(recent_share=0.0), llama.model.layers[0].self_attn.o_proj.weight
    order = held.mass_HT.masked_fill(~held.is_there_HT, -1).argsort(1, descending=True)

    def expected(head, slot):
        adds = 0.0
        for shared in range(GROUP):
            placed = torch.zeros(HEADS * GROUP, WIDTH)
            placed[head * GROUP + shared] = held.values_HTD[head, slot]
            adds += float((weight @ placed.flatten()).abs().sum()) / GROUP
        return (float(held.mass_HT[head, slot]) + 1e-4) * adds

    assert_scores(CriticalKV(base, first_share=0), held, expected)
    found = CriticalKV(base)(held)  # half of the budget of 4 goes by the score alone
    assert torch.equal(found.argsort(1, descending=True)[:, :2], order[:, :2])
    others = torch.ones_like(found, dtype=torch.bool).scatter(1, order[:, :2], False)
    assert torch.equal(found[others], CriticalKV(base, first_share=0)(held)[others])


def test_a_lot_is_drawn_by_place_not_by_what_else_is_held(llama):
    few, many = held_of(llama, counts=(5, 5)), held_of(llama, counts=(19, 19))
    by_place = [dict(zip(many.position_HT[head].tolist(), Random()(many)[head].tolist(), strict=True)) for head in range(HEADS)]
    assert_scores(Random(), few, lambda head, slot: by_place[head].get(int(few.position_HT[head, slot]), float(Random()(few)[head, slot])))
    assert len({*by_place[0].values(), *by_place[1].values()}) == 38
    assert not torch.equal(Random(1)(many), Random()(many))


def test_rotation_is_the_models_own_and_is_taken_back(llama):
    module, rotation = llama.model.layers[0].self_attn, Rotation.of(llama.model)
    states, places = torch.randn(4, 10, WIDTH), torch.arange(3, 13)
    cos, sin = llama.model.rotary_emb(states, position_ids=places[None])
    turned, _ = apply_rotary_pos_emb(states[None], states[None], cos, sin)
    assert (turned[0] - states).abs().max() > 0.1
    torch.testing.assert_close(rotation.taken_back(module, turned[0], places), states)
    same = states[:, :1].expand(-1, 10, -1)[None]
    mean = apply_rotary_pos_emb(same, same, cos, sin)[0][0].mean(1, keepdim=True)
    torch.testing.assert_close(rotation.mean_turned(module, states[:, :1], places), mean)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_moments_are_those_of_the_projected_queries_behind_the_first_tokens(model_of, family):
    """End to end: prompt and generated tokens, with padding, taken back from how they were turned."""
    model, mask = model_of(family), torch.ones(2, 40, dtype=torch.long)
    ids, mask[1, :15] = torch.randint(4, 250, (2, 40), generator=torch.Generator().manual_seed(0)), 0
    full = [layer.self_attn for layer in model.model.layers if not getattr(layer.self_attn, "is_sliding", False)]
    seen: list[torch.Tensor] = []
    hook = full[-1].register_forward_hook(
        lambda module, _, named, __: seen.append(queries_of(module, named["hidden_states"])), with_kwargs=True
    )
    with torch.no_grad(), attach(model, replace(EVICTION["expected_attention"], budget_tokens=30)):
        cache = model(ids, attention_mask=mask).past_key_values
        for _ in range(3):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
            model(ids[:, :1], attention_mask=mask, past_key_values=cache)
    hook.remove()
    layer = [each for each in cache.layers if isinstance(each, EvictingCacheLayer)][-1]
    for row, length in enumerate((43, 28)):
        own = torch.cat([each[row] for each in seen], 1)[:, -length:][:, 4:].double()
        torch.testing.assert_close(layer.memory.moments_B[row].mean_ND, own.mean(1), atol=1e-5, rtol=1e-4)
        assert layer.memory.moments_B[row].count == length - 4


def queries_of(module, hidden) -> torch.Tensor:
    """Before they are turned, [B, N, T, D]."""
    queries = module.q_proj(hidden).unflatten(-1, (-1, module.head_dim))
    return (module.q_norm(queries) if hasattr(module, "q_norm") else queries).transpose(1, 2)


def test_what_can_not_be_weighed_by_values_is_refused(llama):
    with pytest.raises(UserError, match="by replay can't be weighed"):
        CriticalKV(KVzip())
    with torch.no_grad(), pytest.raises(UserError, match="KeyNorm gives importance below 0"):
        CriticalKV(KeyNorm())(held_of(llama))


# ---------------------------------------------------------------------- budgets


def test_a_pyramid_spends_what_uniform_layers_spend():
    assert of_layers("uniform", 10, layers=3, seen=100, recent=2, slope=4) == [10, 10, 10]
    # 8 free a layer: 2 + 8/4 in the last one, 2 + 2*8 - 2 in the first
    assert of_layers("pyramid", 10, layers=3, seen=100, recent=2, slope=4) == [16, 10, 4]
    # the first layer can't keep 16 of 13 tokens: it keeps all, and the last one what that leaves
    assert of_layers("pyramid", 10, layers=3, seen=13, recent=2, slope=4) == [13, 10, 7]
    assert of_layers("pyramid", 10, layers=3, seen=10, recent=2, slope=4) == [10, 10, 10]
    assert of_layers("pyramid", 10, layers=3, seen=100, recent=2, slope=1) == [10, 10, 10]
    for budget in range(1, 40):
        found = of_layers("pyramid", budget, layers=7, seen=40, recent=6, slope=20)
        assert sum(found) == 7 * budget and max(found) <= 40 and min(found) >= 1 and found == sorted(found, reverse=True)


def test_heads_keep_as_many_each_or_what_is_most_important_in_any():
    importance = torch.tensor([[9.0, 1, 8, 7, 6, 0], [0.5, 0.4, 0.3, 0.2, 5, -math.inf]])
    even = chosen(importance, 3, by_head=False, least_share=0)
    assert [index.tolist() for index in even] == [[0, 2, 3], [0, 1, 4]]
    spread = chosen(importance, 3, by_head=True, least_share=0)
    assert [index.tolist() for index in spread] == [[0, 1, 2, 3, 4], [4]]
    safe = chosen(importance, 3, by_head=True, least_share=0.7)
    assert [index.tolist() for index in safe] == [[0, 2, 3, 4], [0, 4]]
    assert [len(index) for index in chosen(importance, 9, by_head=True, least_share=0.2)] == [6, 5]
    all_even = chosen(importance, 3, by_head=True, least_share=1.0)
    assert [index.tolist() for index in all_even] == [index.tolist() for index in even]
    of_equal_ones = chosen(torch.ones(1, 6), 2, by_head=False, least_share=0)
    assert [index.tolist() for index in of_equal_ones] == [[0, 1]]


@pytest.mark.parametrize("budget", [1, 3, 6, 10])
def test_the_first_tokens_come_first_and_the_last_ones_then(llama, budget):
    held = held_of(llama, counts=(20, 20), budget=budget, recent=min(32, budget // 2))
    for places in EVICTION["snapkv"].kept([held])[0]:  # 4 first tokens; half the budget for the last ones
        recent = [*range(SEEN - min(32, budget // 2), SEEN)]
        assert set([*range(4), *reversed(recent)][:budget]) <= set(places.tolist())


# ---------------------------------------------------------------------- slots


def test_slots_of_uneven_segments_give_back_what_was_put_in():
    draw = torch.Generator().manual_seed(0)
    counts = [[3, 5], [0, 2], [4, 4]]
    segments = [
        [
            Segment(
                torch.randn(n, 4, generator=draw), torch.randn(n, 6, generator=draw), torch.arange(n).int(), torch.rand(n, generator=draw)
            )
            for n in row
        ]
        for row in counts
    ]
    slots = Slots(segments, room_tokens=2)
    assert slots.count_BH.tolist() == counts and slots.runs == [range(2, 3)]
    assert slots.bytes == (sum(map(sum, counts)) + 6 * 2) * (4 + 6 + 1 + 1) * 4
    assert torch.equal(slots.rectangle(slots.keys_SD, range(2, 3))[0, 1], segments[2][1].keys_TD)
    assert slots.select([2, 2, 0, 2], room_tokens=3).runs == [range(2), range(3, 4)]
    picked = slots.select([2, 0, 0], room_tokens=3)
    for row, source in enumerate([2, 0, 0]):
        for found, expected in zip(picked.row(row), segments[source], strict=True):
            for part, own in zip(found.parts(), expected.parts(), strict=True):
                assert torch.equal(part, own)
    own = segments[0][0].then(segments[0][1]).at(torch.tensor([0, 7]))
    assert torch.equal(own.keys_TD, torch.stack([segments[0][0].keys_TD[0], segments[0][1].keys_TD[4]]))


@pytest.mark.parametrize(("before", "new"), [(2000, 32), (8, 300)])
def test_attention_over_much_before_and_little_of_its_own_is_as_exact_in_half_precision(before, new):
    generator = torch.Generator().manual_seed(new)
    shapes = ((3, new, 64), (before + new, 64), (before + new, 64))
    queries, keys, values = (torch.randn(*shape, generator=generator).bfloat16() for shape in shapes)
    keys[0] *= 3  # read most by some
    is_seen = torch.ones(new, before + new, dtype=torch.bool).tril(before)
    scores = (queries.double() @ keys.double().T * 0.125).masked_fill(~is_seen, -torch.inf)
    expected = scores.softmax(-1) @ values.double()
    found = attention.causal(queries, keys, values, 0.125)
    assert float((found.double() - expected).norm() / expected.norm()) < 0.004


def test_values_of_another_width_than_keys_are_read_behind_a_context():
    queries, keys, values = (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 5, 24), (40, 24), (40, 16)))
    scores = (queries @ keys.T * 0.2).masked_fill(~torch.ones(5, 40, dtype=torch.bool).tril(35), -torch.inf)
    read, normaliser = attention.with_normaliser(queries, keys, values, 0.2)
    for found in (read, attention.causal(queries, keys, values, 0.2)):
        torch.testing.assert_close(found, scores.softmax(-1) @ values)
    torch.testing.assert_close(normaliser, scores.logsumexp(-1))


@pytest.mark.parametrize("new", [1, 16, 40, 57])
def test_attention_is_summed_and_compared_some_queries_at_a_time(new, monkeypatch):
    monkeypatch.setattr("etude.kv_cache.attention._BLOCK_WEIGHTS", 1)  # sixteen queries
    generator = torch.Generator().manual_seed(new)
    queries, keys, values = (torch.randn(*shape, generator=generator) for shape in ((3, new, 8), (57, 8), (57, 8)))
    scores = queries @ keys.T * 0.3
    for query in range(new):
        scores[:, query, 57 - new + query + 1 :] = -torch.inf
    weights = scores.softmax(-1)
    expected = torch.einsum("rqt,td->rqd", weights, values)
    kernels = attention.received_for
    for has_flash, has_kernel in product((True, False), repeat=2):
        monkeypatch.setattr("etude.kv_cache.attention.is_available", lambda device, has_flash=has_flash: has_flash)
        monkeypatch.setattr("etude.kv_cache.attention.received_for", kernels if has_kernel else lambda *states: None)
        read, normaliser = attention.with_normaliser(queries, keys, values, 0.3)
        torch.testing.assert_close(normaliser, scores.logsumexp(-1))
        of_sums, summed = attention.with_sums(queries, keys, values, 0.3)
        of_strongest, strongest = attention.with_strongest(queries, keys, values, 0.3)
        for found in (read, of_sums, of_strongest, attention.causal(queries, keys, values, 0.3)):
            torch.testing.assert_close(found, expected)
        torch.testing.assert_close(summed, weights.sum(1).mean(0))
        torch.testing.assert_close(strongest, weights[:, :, : 57 - new].amax((0, 1)))


@pytest.mark.parametrize(("new", "before", "width"), [(1, 0, 64), (1, 300, 64), (33, 95, 64), (300, 300, 16), (257, 0, 32), (70, 129, 6)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_keys_receive_by_the_kernel_is_the_sum_and_the_most_of_the_weights(new, before, width, precision):
    generator = torch.Generator().manual_seed(new)
    queries = torch.randn(new, 3, width, generator=generator).to(precision).transpose(0, 1)  # as they lie in a forward pass
    keys = torch.randn(before + new, width, generator=generator).to(precision)
    keys[0] *= 3
    received = received_for(queries, keys)
    if received is None:
        pytest.skip("there is no C++ compiler")
    is_seen = torch.ones(new, before + new, dtype=torch.bool).tril(before)
    scores = (queries.double() @ keys.double().T * 0.2).masked_fill(~is_seen, -torch.inf)
    normaliser, weights = scores.logsumexp(-1), scores.softmax(-1)
    for asked, is_sum, expected in ((before + new, True, weights.sum((0, 1))), (before, False, weights.amax((0, 1))[:before])):
        found = received(queries, keys, normaliser, asked, 0.2, is_sum)
        torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=2e-5)


def test_gradients_go_through_what_is_read_and_not_through_what_slots_receive(llama):
    one = torch.randint(2, 60, (1, 12))
    grads = {}
    for name in ("streaming", "h2o"):
        llama.zero_grad()
        with attach(llama, replace(EVICTION[name], keep_ratio=1.0)):
            llama(one, use_cache=True).logits.square().mean().backward()
        grads[name] = {of: own.grad.clone() for of, own in llama.named_parameters() if own.grad is not None}
    torch.testing.assert_close(grads["streaming"], grads["h2o"])
    assert all(grads["h2o"][f"model.layers.{layer}.self_attn.q_proj.weight"].abs().max() > 0 for layer in range(2))
