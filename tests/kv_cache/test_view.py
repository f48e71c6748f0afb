"""A policy as the engine's view: what is sampled, its log-probs, and practice under it."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from etude.decoding.search_settings import AnswerSearch
from etude.engine.completion import Stop
from etude.engine.forward import find_forward
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.engine.working_copy import WorkingCopy
from etude.errors import UserError
from etude.kernels.decoding import kernels_for
from etude.kernels.tables import SKETCHED
from etude.kv_cache.attach import attach
from etude.kv_cache.evicting_kernels import SlotsStep
from etude.kv_cache.page_summaries import INDEXES
from etude.kv_cache.paged_kernels import PagesStep
from etude.kv_cache.policies import EVICTION, POLICIES, RETRIEVAL
from etude.kv_cache.retrieval import PagedRetrieval
from etude.kv_cache.settings import KVCacheSettings
from etude.kv_cache.view import PolicyView
from etude.recipes.evaluate import EvaluateSettings
from etude.recipes.generate import GenerateSettings
from etude.settings.configuration import find_configuration
from etude.training.parse import parse_practice

SAMPLED = Sampling(temperature=0.8)


def prompts_of(*lengths: int) -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.integers(4, 250, length).tolist() for length in lengths]


PROMPTS = prompts_of(30, 7, 44)


def sampled(engine, prompts=PROMPTS, **rest):
    return engine.generate(prompts, **{"num_samples": 3, "max_new_tokens": 20, "sampling": SAMPLED, "seed": 5} | rest)


def under_policy(model, policy, prompt, completion, sampling) -> list[float]:
    """The log-prob of each token of a completion, one by one, under the policy."""
    found = []
    with torch.no_grad(), attach(model, policy):
        output = model(torch.tensor([prompt]))
        for token in completion:
            found.append(float((output.logits[0, -1] / sampling.temperature).log_softmax(-1)[token]))
            output = model(torch.tensor([[token]]), past_key_values=output.past_key_values)
    return found


@pytest.mark.parametrize("family", ["llama", "gemma3", "lfm2", "gpt2"])
def test_a_view_that_keeps_all_samples_what_the_engine_samples_without(model_of, tokenizer, family):
    model = model_of(family)
    plain = sampled(TransformersEngine(model, tokenizer))
    for policy in (replace(EVICTION["snapkv"], keep_ratio=1.0), PagedRetrieval()):
        viewed = sampled(TransformersEngine(model, tokenizer, view=PolicyView("all", policy)))
        for ours, own in zip(chain(*viewed), chain(*plain), strict=True):
            assert ours.tokens == own.tokens and ours.logprobs == pytest.approx(own.logprobs, abs=1e-4)
            assert (ours.view, own.view) == ("all", "full")


def test_the_most_that_a_batch_held_is_measured(llama, tokenizer):
    taken = {}
    for ratio in (1.0, 0.5):
        view = PolicyView("some", replace(EVICTION["h2o"], keep_ratio=ratio, every_tokens=4))
        sampled(TransformersEngine(llama, tokenizer, view=view), prompts_of(60), max_new_tokens=40)
        taken[ratio] = view.take_peak_bytes()
        assert view.take_peak_bytes() == 0
    a_slot = 2 * 2 * (2 * 8 * 4 + 4 + 4)  # layers, heads; keys and values of width 8, a place and a sum
    assert taken[1.0] <= 3 * (60 + 40 + 32) * a_slot and taken[1.0] >= 3 * (60 + 39) * a_slot
    assert taken[0.5] <= 3 * (50 + 4 + 4) * a_slot, "half of it and what comes before something is dropped again"


def small(name):
    """A policy that leaves out half of a few tokens."""
    if name in EVICTION:
        return replace(EVICTION[name], keep_ratio=0.45, every_tokens=4)
    return recall_of(RETRIEVAL[name].digest)


def recall_of(digest, **changes):
    return PagedRetrieval(
        digest, page_tokens=SKETCHED if digest == "sketch" else 4, keep_ratio=0.6 if digest == "sketch" else 0.45, **changes
    )


@pytest.mark.parametrize("name", ["h2o", "expected_attention", "ada_snapkv", "quest", "sketch"])
def test_the_engines_own_forward_pass_gives_the_logits_of_the_model_under_the_policy(llama, name):
    view = PolicyView(name, small(name))
    shared = find_forward(llama, llama)
    with torch.inference_mode():
        both = [view.prefill(llama, PROMPTS, 0, way) for way in (None, shared)]
        assert torch.equal(both[0][1], both[1][1])
        rows = torch.tensor([0, 1, 1, 2])
        contexts = [opened.begin(torch.arange(3), 30, samples=4) for opened, _ in both]
        for context in contexts:
            context.keep(rows, 30)
        for tokens in torch.randint(4, 250, (14, 4), generator=torch.Generator().manual_seed(0)):
            own, ours = (context.next_logits(tokens) for context in contexts)
            torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)
    assert [context.forward for context in contexts] == [None, shared.forward]


WIDE = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
compiled = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")


def drawn_logits(view, model, shared):
    """Logits of 14 tokens of 4 rows, as `[14, 4, V]`, and the layers that hold them."""
    opened, _ = view.prefill(model, PROMPTS, 0, shared)
    context, found = opened.begin(torch.arange(3), 30, samples=4), []
    context.keep(torch.tensor([0, 1, 1, 2]), 30)
    for tokens in torch.randint(4, 250, (14, 4), generator=torch.Generator().manual_seed(0)):
        found.append(context.next_logits(tokens).float())
    return torch.stack(found), context.inner.cache.layers


def held_by_both(layers, others):
    """Of every layer, row and head what one context holds, and what the other does."""
    for mine, its in zip(layers, others, strict=True):
        for row in range(4):
            yield from zip(mine.slots.row(row), its.slots.row(row), strict=True)


@compiled
@pytest.mark.parametrize("name", EVICTION)
def test_kernels_over_slots_give_the_logits_of_torchs_operations(model_of, monkeypatch, name):
    model = model_of("llama", **WIDE)
    view = PolicyView(name, replace(EVICTION[name], keep_ratio=0.45, every_tokens=4))
    with torch.inference_mode():
        ours, layers = drawn_logits(view, model, find_forward(model, model))
        monkeypatch.setattr("etude.kv_cache.evicting_kernels.kernels_for", lambda *_: None)
        expected, others = drawn_logits(view, model, find_forward(model, model))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    for found, wanted in held_by_both(layers, others):
        assert torch.equal(found.position_T, wanted.position_T)
        torch.testing.assert_close(found.mass_T, wanted.mass_T, atol=1e-5, rtol=1e-4)


@compiled
@pytest.mark.parametrize("offload", ["none", "file"])
@pytest.mark.parametrize("digest", INDEXES)
def test_kernels_over_pages_choose_and_give_what_torchs_operations_do(model_of, monkeypatch, digest, offload):
    model = model_of("llama", **WIDE)
    view = PolicyView("recall", recall := recall_of(digest, offload=offload, full_attention_layers=1))
    with torch.inference_mode():
        ours, layers = drawn_logits(view, model, find_forward(model, model))
        monkeypatch.setattr("etude.kv_cache.paged_kernels.kernels_for", lambda *_: None)
        expected, others = drawn_logits(view, model, find_forward(model, model))
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    for mine, its in zip(layers, others, strict=True):
        assert np.array_equal(mine.pages.times_BHP, its.pages.times_BHP) and (mine.units_read, mine.hits) == (its.units_read, its.hits)
    pages = sum((seen - 1) // recall.page_tokens + 1 for seen in range(45, 59))  # open ones too, which are always read
    there = pages * recall.page_tokens // recall.unit_tokens
    assert (layers[0].pages.times_BHP[3].sum(-1) == there).all() and (layers[1].pages.times_BHP[3].sum(-1) < 0.6 * there).all()


def layers_of_both(model_of, monkeypatch, view, token):
    """The layers behind fourteen tokens by one kernel, and layer by layer: with the same logits to the bit, or the test has failed."""
    model = model_of("llama", **WIDE, intermediate_size=64)
    working = WorkingCopy(model, torch.bfloat16).model
    shared = find_forward(model, working)
    if shared is None or not shared.forward._few_rows:
        pytest.skip("this processor has no bfloat16 products")
    runs = []
    monkeypatch.setattr(token, "run", lambda *given, own=token.run: runs.append(1) or own(*given))
    with torch.inference_mode():
        ours, layers = drawn_logits(view, working, shared)
        assert len(runs) == 14
        monkeypatch.setattr(shared.forward, "_few_rows", None)
        expected, others = drawn_logits(view, working, shared)
    assert len(runs) == 14 and torch.equal(ours, expected)
    for mine, its in zip(layers, others, strict=True):
        assert mine.seen_B.tolist() == its.seen_B.tolist() == [44, 21, 21, 58] and mine.width == its.width
    return layers, others


@compiled
@pytest.mark.parametrize("name", ["streaming", "h2o", "tova", "ada_snapkv", "kvzip", "random"])
def test_a_step_over_slots_by_one_kernel_is_the_same_to_the_bit(model_of, monkeypatch, name):
    view = PolicyView(name, replace(EVICTION[name], keep_ratio=0.45, every_tokens=4))
    layers, others = layers_of_both(model_of, monkeypatch, view, SlotsStep)
    for found, wanted in held_by_both(layers, others):
        assert all(torch.equal(*parts) for parts in zip(found.parts(), wanted.parts(), strict=True))


@compiled
@pytest.mark.parametrize("digest", INDEXES)
def test_a_step_over_pages_by_one_kernel_is_the_same_to_the_bit(model_of, monkeypatch, digest):
    view = PolicyView("recall", recall_of(digest, full_attention_layers=1))
    for mine, its in zip(*layers_of_both(model_of, monkeypatch, view, PagesStep), strict=True):
        assert np.array_equal(mine.pages.times_BHP, its.pages.times_BHP) and np.array_equal(
            mine.selection.generated_B, its.selection.generated_B
        )
        assert (mine.units_read, mine.hits) == (its.units_read, its.hits) and mine.forward.scales == its.forward.scales
        for row, tokens in enumerate(mine.pages.open_B):
            assert torch.equal(mine.pages.open_BH2TD[row, :, :, :tokens], its.pages.open_BH2TD[row, :, :, :tokens])
            assert all(torch.equal(mine.pages.past(row, head), its.pages.past(row, head)) for head in range(2))


@pytest.mark.parametrize(
    ("policy", "step"),
    [(PagedRetrieval(keep_ratio=0.5, offload="file"), PagesStep), (replace(EVICTION["expected_attention"], keep_ratio=0.45), SlotsStep)],
    ids=["pages in a file", "moments of queries"],
)
def test_what_one_kernel_can_not_read_is_read_layer_by_layer(model_of, policy, step):
    model = model_of("llama", **WIDE)
    with torch.inference_mode():
        _, layers = drawn_logits(PolicyView("some", policy), model, find_forward(model, model))
    assert step.of(layers) is None


@pytest.mark.parametrize(("name", "most"), [("kvzip", 32), ("streaming", 16)])
def test_no_more_slots_are_to_spare_than_tokens_will_be_generated(llama, name, most):
    view = PolicyView(name, replace(EVICTION[name], keep_ratio=0.5))
    opened, _ = view.prefill(llama, PROMPTS, 0)
    for room_tokens in (3, 100):
        context = opened.begin(torch.arange(3), room_tokens, samples=3)
        slots = context.inner.cache.layers[0].slots
        assert (slots.room_BH - slots.count_BH == min(room_tokens, most)).all()
        context.keep(torch.tensor([0, 2]), 2)
        for _ in range(4):  # more than was said
            context.next_logits(torch.tensor([5, 6]))
        assert context.inner.cache.layers[0].seen_B.tolist() == [34, 48]


def test_a_model_with_other_layers_too_generates_by_its_own_forward_pass(model_of):
    model = model_of("gemma3")
    opened, _ = PolicyView("all", EVICTION["snapkv"]).prefill(model, PROMPTS, 0, find_forward(model_of("llama"), model_of("llama")))
    assert opened.forward is None, "its windows are not the cache's to read"


@pytest.mark.parametrize("name", POLICIES)
def test_log_probs_are_those_of_the_model_under_the_policy(model_of, tokenizer, name):
    """Whatever is sampled beside it, in whatever batch."""
    llama = model_of("llama", head_dim=32)  # of narrower heads several keys have one sketch
    policy = small(name)
    together = sampled(TransformersEngine(llama, tokenizer, view=PolicyView(name, policy)))
    apart = sampled(TransformersEngine(llama, tokenizer, view=PolicyView(name, policy), batch_tokens=1))
    plain = sampled(TransformersEngine(llama, tokenizer))
    assert [c.tokens for c in chain(*together)] == [c.tokens for c in chain(*apart)] != [c.tokens for c in chain(*plain)]
    for prompt, row in zip(PROMPTS, together, strict=True):
        for completion in row:
            assert completion.logprobs == pytest.approx(under_policy(llama, policy, prompt, completion.tokens, SAMPLED), abs=1e-4)


def test_the_verbs_and_joint_answers_work_under_a_view(llama, tokenizer):
    policy = replace(EVICTION["ada_snapkv"], budget_tokens=12, every_tokens=4)
    engine = TransformersEngine(llama, tokenizer, view=PolicyView("ada", policy))
    (expected,) = engine.generate([PROMPTS[2]], max_new_tokens=9, sampling=SAMPLED, keys=[[7]])
    opened = engine.open([PROMPTS[2]])
    (first,) = engine.extend(opened, 9, until=Stop(), sampling=SAMPLED, keys=[7])
    assert first.own_tokens == expected[0].tokens
    joint = engine.extend_joint([opened * 2], 9, sampling=SAMPLED, keys=[3])
    assert joint[0].completion.tokens == engine.generate([PROMPTS[2]], max_new_tokens=9, sampling=SAMPLED, keys=[[3]])[0][0].tokens
    behind = engine.open([[9, 8]], [first])
    assert behind[0].tokens == (*PROMPTS[2], *expected[0].tokens, 9, 8)
    (anew,) = engine.generate([behind[0].tokens], max_new_tokens=3, sampling=GREEDY)
    assert engine.extend(behind, 3, until=Stop(), sampling=GREEDY, keys=[0])[0].own_tokens == anew[0].tokens


def test_more_rows_fit_into_a_batch_by_what_they_hold(llama, tokenizer):
    full = TransformersEngine(llama, tokenizer, batch_tokens=400)
    small = PolicyView("small", replace(EVICTION["streaming"], budget_tokens=10, every_tokens=2))
    assert full._samples_at_once(30, 20, full.view, is_shared=False) == 8
    assert full._samples_at_once(30, 20, small, is_shared=False) == 400 // 12
    assert small.held_tokens(4, 4) == 8
    assert replace(small, policy=replace(small.policy, every_tokens=0)).held_tokens(100, 1000) == 1010
    assert PolicyView("kvzip", replace(EVICTION["kvzip"], budget_tokens=64)).held_tokens(100, 1000) == 1064
    assert PolicyView("pages", PagedRetrieval(budget_tokens=8, page_tokens=4)).held_tokens(30, 20) == 50 + 12
    assert PolicyView("file", PagedRetrieval(budget_tokens=8, page_tokens=4, offload="file")).held_tokens(30, 20) == 8 + 12
    sketch = PolicyView("sketch", PagedRetrieval("sketch", budget_tokens=64, offload="file"))
    assert sketch.held_tokens(1000, 24) == 64 + 1024 // 16 / 2 + 32, "a 32nd of the tokens as sketches, and directions"
    assert full._chunk_size(100, 2, 10, small) == 4, "prompts are read in full"


def test_a_view_is_told_by_its_name_and_its_budget(tokenizer):
    assert KVCacheSettings().build_view(tokenizer) is None and not KVCacheSettings().is_on
    view = KVCacheSettings(policy="snapkv", keep_ratio=0.25).build_view(tokenizer)
    assert view and view.name == "snapkv 0.25" and view.policy == replace(EVICTION["snapkv"], keep_ratio=0.25)
    pages = KVCacheSettings(policy="quest", budget_tokens=64, page_tokens=8, offload="file", full_attention_layers=2).build_view(tokenizer)
    assert pages and pages.name == "quest 64 tokens"
    assert pages.policy == PagedRetrieval("bounds", budget_tokens=64, page_tokens=8, offload="file", full_attention_layers=2)
    for changes, message in (
        ({"policy": "snapk", "keep_ratio": 0.5}, "unknown kv_cache.policy 'snapk': did you mean 'snapkv'"),
        ({"policy": "snapkv"}, "kv_cache.policy snapkv keeps everything without a budget: set kv_cache.keep_ratio"),
        ({"policy": "snapkv", "keep_ratio": 2.0}, "kv_cache.keep_ratio must be above 0"),
        ({"policy": "quest", "budget_tokens": 3}, "kv_cache.budget_tokens is 3, but a head reads its open page"),
    ):
        with pytest.raises(UserError, match=message):
            KVCacheSettings(**changes)
    kept = KVCacheSettings(policy="snapkv", keep_ratio=0.5)
    kept.check_search("search.method", "samples")
    KVCacheSettings().check_search("search.method", "mcts")
    with pytest.raises(UserError, match=r"rollout\.search\.method mcts goes on from pieces .* kv_cache\.policy snapkv"):
        kept.check_search("rollout.search.method", "mcts")
    for parsed in (GenerateSettings, EvaluateSettings):
        with pytest.raises(UserError, match="goes on from pieces"):
            parsed(kv_cache=kept, sampling=SAMPLED, search=AnswerSearch(method="beam"))
    with pytest.raises(UserError, match="goes on from pieces"):
        parse_practice(
            find_configuration("practice", "tiny"), ["--kv_cache.policy", "snapkv", "--kv_cache.keep_ratio", "0.5", "--search", "mcts"]
        )


@pytest.mark.parametrize("name", ["streaming", "h2o"])
def test_autocast_whose_values_are_of_another_precision_than_keys_changes_little(model_of, name):
    model, policy = model_of("llama", **WIDE), replace(EVICTION[name], keep_ratio=0.5)
    found = []
    for is_on in (False, True):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_on), attach(model, policy):
            cache = model(torch.tensor([PROMPTS[0]])).past_key_values
            both = [model(torch.tensor([tokens]), past_key_values=cache).logits[0, -1].float() for tokens in ([5, 6, 7], [8], [9])]
        found.append(torch.stack(both))
    assert float((found[0] - found[1]).abs().mean() / found[0].std()) < 0.1
