"""Tokens that are computed as far as they are read, against a slow reference, and as a view of the engine."""

import math
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.evaluation.long.multi_policy import LazyRows
from etude.kv_cache.lazyllm import LazyText, LazyTokens, LazyView
from etude.kv_cache.settings import KVCacheSettings

SAMPLED = Sampling(temperature=0.8)
HALF = LazyTokens(keep_ratio=0.5, cuts=1, sinks=2, recent=3)


def tokens_of(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(4, 250, length).tolist()


class Slow:
    """Token by token, layer by layer, head by head: what the method says, as plainly as can be."""

    def __init__(self, model, how: LazyTokens) -> None:
        self.model, self.how, self.length = model, how, 0
        self.state, self.depth, self.kept = {}, {}, {}

    def read(self, tokens):
        decoder, layers = self.model.model, self.model.model.layers
        for token in tokens:
            self.state[self.length], self.depth[self.length] = decoder.embed_tokens(torch.tensor([token]))[0], 0
            self.length += 1
        going = list(range(self.length))
        for number, layer in enumerate(layers):
            for token in [token for token in going if self.depth[token] == number]:
                self.state[token], importance = self.through(number, layer, token, [each for each in going if each <= token])
                self.depth[token] = number + 1
            count = self.how.going(self.length, number + 1, len(layers))
            if count < len(going):
                always = [t for t in going if t < self.how.sinks or t >= self.length - self.how.recent]
                others = sorted((t for t in going if t not in always), key=lambda t: -importance[t])
                going = sorted(always + others[: count - len(always)])
        return self.model.lm_head(decoder.norm(self.state[self.length - 1]))

    def through(self, number, layer, token, seen):
        attention, normed = layer.self_attn, layer.input_layernorm(self.state[token])
        width = attention.head_dim
        cos, sin = self.model.model.rotary_emb(normed[None, None], position_ids=torch.tensor([[token]]))
        queries, keys, values = (part(normed).view(1, -1, 1, width) for part in (attention.q_proj, attention.k_proj, attention.v_proj))
        queries, keys = apply_rotary_pos_emb(queries, keys, cos, sin)
        self.kept[number, token] = keys[0, :, 0], values[0, :, 0]
        read, importance, share = [], Counter(), queries.shape[1] // keys.shape[1]
        for head in range(queries.shape[1]):
            scores = [float(queries[0, head, 0] @ self.kept[number, t][0][head // share]) / math.sqrt(width) for t in seen]
            weights = torch.tensor(scores).softmax(0)
            read.append(sum(w * self.kept[number, t][1][head // share] for w, t in zip(weights, seen, strict=True)))
            importance.update(dict(zip(seen, weights.tolist(), strict=True)))
        state = self.state[token] + attention.o_proj(torch.cat(read))
        return state + layer.mlp(layer.post_attention_layernorm(state)), importance


@pytest.mark.parametrize(
    "how", [HALF, LazyTokens(budget_tokens=6, cuts=1, sinks=0, recent=1), LazyTokens(keep_ratio=0.25, cuts=3, sinks=1, recent=1)]
)
@torch.inference_mode()
def test_tokens_stop_and_go_on_as_in_a_slow_reference(llama, how):
    text, slow = LazyText(llama, how), Slow(llama, how)
    stopped = Counter()
    for part in (tokens_of(30), tokens_of(5, 1), *([token] for token in tokens_of(8, 2))):
        before = text.depth_T.tolist()
        torch.testing.assert_close(text.read(part), slow.read(part), atol=2e-5, rtol=1e-4)
        depth = text.depth_T.tolist()
        assert depth == [slow.depth[token] for token in range(slow.length)]
        layers = len(llama.model.layers)
        stopped["stopped"] += sum(own < layers for own in depth)
        stopped["went on"] += sum(own > was for own, was in zip(depth, before, strict=False))
    assert stopped["stopped"] > 20 and stopped["went on"] > 3
    assert text.computed_tokens == pytest.approx(sum(depth) / layers) and text.is_computed_LT.sum(0).tolist() == depth


@torch.inference_mode()
def test_where_all_go_on_it_is_the_model_itself(llama):
    tokens = tokens_of(25)
    for how in (LazyTokens(keep_ratio=1.0), LazyTokens(budget_tokens=40)):
        text, end = LazyText(llama, how), 20
        torch.testing.assert_close(text.read(tokens[:end]), llama(torch.tensor([tokens[:end]])).logits[0, -1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(text.read(tokens[end:]), llama(torch.tensor([tokens])).logits[0, -1], atol=1e-5, rtol=1e-4)
        assert text.depth_T.tolist() == [2] * 25


def test_no_layer_computes_a_token_twice(llama):
    rows = Counter()
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, number=number: rows.update({number: given[0].shape[1]}))
        for number, layer in enumerate(llama.model.layers)
    ]
    text = LazyText(llama, HALF)
    for part in (tokens_of(40), *([token] for token in tokens_of(12, 1))):
        text.read(part)
    for hook in hooks:
        hook.remove()
    assert rows == {number: int((text.depth_T > number).sum()) for number in range(2)} and rows[1] < rows[0] == 52


def test_memory_of_later_layers_is_that_of_what_they_computed(llama):
    whole, half = LazyText(llama, LazyTokens(keep_ratio=1.0)), LazyText(llama, HALF)
    for text in (whole, half):
        text.read(tokens_of(320))
    a_token = 2 * 2 * 8 * 4  # heads, keys and values of width 8
    assert (whole.bytes - half.bytes) / a_token == pytest.approx(160 * 9 / 8, abs=2)  # an eighth more is room


def test_fewer_go_on_after_every_cut_down_to_the_budget():
    how = LazyTokens(keep_ratio=0.25, cuts=3)
    assert [how.going(400, layer, 8) for layer in range(1, 9)] == [400, 300, 300, 200, 200, 100, 100, 100]
    assert LazyTokens(budget_tokens=5).going(400, 30, 30) == 20  # the first four and the last sixteen
    assert LazyTokens(budget_tokens=5).going(12, 30, 30) == 12


def test_the_model_is_what_it_was_also_behind_an_exception(llama):
    before = llama.config._attn_implementation
    text = LazyText(llama, HALF)
    with pytest.raises(IndexError):
        text.read([10**6])
    text = LazyText(llama, HALF)
    text.read(tokens_of(9))
    llama.model.layers[1].mlp.forward = None
    with pytest.raises(TypeError):
        text.read([5])
    assert llama.config._attn_implementation == before


def test_what_a_copy_reads_the_other_does_not(llama):
    text = LazyText(llama, HALF)
    text.read(tokens_of(30))
    copy, expected = text.copy(), text.copy().read([7])
    copy.read(tokens_of(9, 3))
    assert torch.equal(text.read([7]), expected) and (len(text), len(copy)) == (31, 39)


PROMPTS = [tokens_of(length, length) for length in (30, 7, 44)]


def sampled(engine, **rest):
    return engine.generate(PROMPTS, num_samples=3, max_new_tokens=12, sampling=SAMPLED, seed=5, **rest)


def test_a_lazy_view_samples_by_its_own_log_probs_in_any_batch(llama, tokenizer):
    view = LazyView("half", HALF)
    together = sampled(TransformersEngine(llama, tokenizer, view=view))
    assert view.peak.take() > 9 * 30 * 2 * 2 * 8 * 4 and view.peak.take() == 0, "what its rows took is measured"
    apart = sampled(TransformersEngine(llama, tokenizer, view=LazyView("half", HALF), batch_tokens=1))
    plain = sampled(TransformersEngine(llama, tokenizer))
    whole = sampled(TransformersEngine(llama, tokenizer, view=LazyView("all", LazyTokens(keep_ratio=1.0))))
    own, its, all_of_it = ([completion.tokens for completion in chain(*each)] for each in (together, plain, whole))
    assert own == [completion.tokens for completion in chain(*apart)] != its == all_of_it
    assert together[0][0].view == "half"
    for prompt, row in zip(PROMPTS, together, strict=True):
        for completion in row:
            text = LazyText(llama, HALF)
            logits_V, found = text.read(prompt), []
            for token in completion.tokens:
                found.append(float((logits_V / 0.8).log_softmax(-1)[token]))
                logits_V = text.read([token])
            assert completion.logprobs == pytest.approx(found, abs=1e-4)


def test_a_question_behind_a_text_is_read_at_once_or_token_by_token(llama):
    text, question = tokens_of(30), tokens_of(4, 1)
    expected = LazyText(llama, HALF)
    expected.read(text)
    at_once = LazyRows(llama, HALF, text)
    assert at_once.held_tokens == [expected.computed_tokens] and at_once.shares(0, 30).shape == (2, 1, 30)
    torch.testing.assert_close(at_once.forced(question, keep=1)[0, 0], expected.copy().read(question))
    one_by_one = LazyRows(llama, HALF, text).forced(question)
    assert one_by_one.shape == (1, 4, llama.config.vocab_size)
    torch.testing.assert_close(one_by_one[0], torch.stack([expected.read([token]) for token in question]))
    with pytest.raises(ValueError, match="can't be taken back"):
        at_once.take_back(1)


def test_a_model_of_another_shape_or_with_windows_is_refused_in_one_sentence(model_of, llama):
    for family in ("gpt2", "gemma3"):
        with pytest.raises(UserError, match="a lazy view is for LlamaForCausalLM"):
            LazyText(model_of(family), HALF)
    llama.config.layer_types = ["sliding_attention", "full_attention"]
    with pytest.raises(UserError, match="layers with sliding_attention can't leave tokens out"):
        LazyText(llama, HALF)


def test_wrong_settings_and_an_empty_prompt_are_one_sentence(llama):
    with pytest.raises(UserError, match=r"kv_cache\.policy lazy keeps everything without a budget"):
        KVCacheSettings(policy="lazy")
    with pytest.raises(UserError, match="cuts must be at least 1"):
        LazyTokens(keep_ratio=0.5, cuts=0)
    with pytest.raises(UserError, match="a prompt has no token"):
        LazyText(llama, HALF).read([])
    assert (
        "every_tokens" in KVCacheSettings(policy="lazy", keep_ratio=0.5).unread
        and "keep_ratio" not in KVCacheSettings(policy="lazy", keep_ratio=0.5).unread
    )
