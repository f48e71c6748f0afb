import numpy as np
import pytest
import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from etude.engine.blocks import BlockContext
from etude.engine.completion import Stop
from etude.engine.copied import CopiedContext
from etude.engine.sampling import GREEDY, Sampling, restrict
from etude.engine.shared import SharedContext
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.models.adapters import add_lora
from etude.models.load import load_model
from etude.models.lora_settings import LoRA

FAMILIES = ["llama", "qwen3", "gpt2", "mistral-window", "gemma3"]
SAMPLED = Sampling(temperature=0.8, top_k=60)
LIMIT = Stop()


def prompts_of(*lengths, seed=0):
    generator = np.random.default_rng(seed)
    return [generator.integers(4, 260, length).tolist() for length in lengths]


PROMPTS = prompts_of(9, 3, 14, 1, 9)


def reference_greedy(model, prompt, max_new_tokens):
    tokens_1T = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            input_ids=tokens_1T, attention_mask=torch.ones_like(tokens_1T), do_sample=False, max_new_tokens=max_new_tokens
        )
    return output[0, len(prompt) :].tolist()


def teacher_forced(model, prompt, completion, sampling):
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    logprobs_TV = restrict(logits_TV / sampling.temperature, sampling).log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(completion)[:, None])[:, 0].tolist()


def sampled(engine, prompts=PROMPTS, **options):
    return engine.generate(prompts, **{"num_samples": 3, "max_new_tokens": 12, "sampling": SAMPLED, "seed": 5} | options)


def tokens_of(results):
    return [[completion.tokens for completion in row] for row in results]


@pytest.mark.parametrize("family", [*FAMILIES, "lfm2", "mamba"])
def test_greedy_equals_transformers_generate_token_for_token(model_of, tokenizer, family):
    model = model_of(family)
    results = TransformersEngine(model, tokenizer).generate(PROMPTS, max_new_tokens=20, sampling=GREEDY)
    assert [list(row[0].tokens) for row in results] == [reference_greedy(model, prompt, 20) for prompt in PROMPTS]


@pytest.mark.parametrize("family", [*FAMILIES, "lfm2", "mamba"])
def test_recorded_log_probs_equal_a_teacher_forced_pass(model_of, tokenizer, family):
    model = model_of(family)
    for sampling in (Sampling(), Sampling(temperature=0.7, top_p=0.9), Sampling(temperature=1.3, min_p=0.01)):
        for prompt, row in zip(PROMPTS, sampled(TransformersEngine(model, tokenizer), sampling=sampling), strict=True):
            for completion in row:
                assert completion.logprobs == pytest.approx(teacher_forced(model, prompt, completion.tokens, sampling), abs=1e-4)


@pytest.mark.model
def test_the_bundled_model_writes_what_generate_writes_and_knows_its_log_probs():
    model, tokenizer = load_model("smollm2-135m")
    engine = TransformersEngine(model, tokenizer)
    texts = ("The capital of France is", "1, 2, 3, 4,", "Once upon a time there was a king who had three daughters, and the youngest")
    prompts = [tokenizer(text)["input_ids"] for text in texts]
    greedy = engine.generate(prompts, max_new_tokens=8, sampling=GREEDY)
    assert [list(row[0].tokens) for row in greedy] == [reference_greedy(model, prompt, 8) for prompt in prompts]
    for prompt, row in zip(prompts, engine.generate(prompts, num_samples=2, max_new_tokens=8, sampling=Sampling(), seed=3), strict=True):
        for completion in row:
            assert completion.logprobs == pytest.approx(teacher_forced(model, prompt, completion.tokens, Sampling()), abs=1e-4)


@pytest.mark.parametrize("family", [*FAMILIES, "lfm2"])
def test_an_attempt_does_not_depend_on_what_is_sampled_beside_it(model_of, tokenizer, family):
    model = model_of(family)
    keys = [[100 * i + j for j in range(3)] for i in range(len(PROMPTS))]
    together = sampled(TransformersEngine(model, tokenizer), keys=keys)
    in_small_batches = sampled(TransformersEngine(model, tokenizer, batch_tokens=1), keys=keys)
    alone = TransformersEngine(model, tokenizer)
    for i, prompt in enumerate(PROMPTS):
        for j in range(3):
            (single,) = sampled(alone, [prompt], num_samples=1, keys=[[keys[i][j]]])[0]
            assert single.tokens == together[i][j].tokens == in_small_batches[i][j].tokens
            assert single.logprobs == pytest.approx(together[i][j].logprobs, abs=1e-4)


def watch(monkeypatch, method, note):
    """Call `note` with a context's rows, and what the method is given, before any kind of context carries it out."""
    for kind in (CopiedContext, SharedContext, BlockContext):
        original = getattr(kind, method)

        def watched(context, *given, original=original):
            note(context, *given)
            return original(context, *given)

        monkeypatch.setattr(kind, method, watched)


@pytest.mark.parametrize("family", [*FAMILIES, "lfm2", "mamba"])
def test_samples_share_a_row_until_they_part(model_of, tokenizer, family, monkeypatch):
    rows = []
    engine = TransformersEngine(model_of(family), tokenizer)
    watch(monkeypatch, "next_logits", lambda context, tokens: rows.append(len(tokens)))
    options = {"num_samples": 6, "max_new_tokens": 8, "sampling": Sampling(temperature=0.05), "keys": [list(range(6)), list(range(6, 12))]}
    found = sampled(engine, PROMPTS[:2], **options)
    needed = [len({(i, c.tokens[:n]) for i, row in enumerate(found) for c in row if len(c.tokens) > n}) for n in range(1, 8)]
    assert rows[0] < 12
    assert all(least <= count <= least / 0.75 for count, least in zip(rows, needed, strict=True))
    same = sampled(engine, PROMPTS[:1], **options | {"num_samples": 4, "keys": [[3] * 4]})
    assert len({completion.tokens for completion in same[0]}) == 1 and rows[7:] == [1] * 7


def test_batch_tokens_bounds_the_positions_decoded_together(llama, tokenizer, monkeypatch):
    engine = TransformersEngine(llama, tokenizer, batch_tokens=120)
    widths, opened = [], engine.open
    monkeypatch.setattr(engine, "open", lambda prompts, **how: widths.append([len(p) for p in prompts]) or opened(prompts, **how))
    engine.generate(PROMPTS, num_samples=2, max_new_tokens=12, sampling=SAMPLED)
    assert sorted(length for row in widths for length in row) == [1, 3, 9, 9, 14]
    assert len(widths) > 1 and all(len(row) * (max(row) + 2 * 12) <= 120 for row in widths)  # a prompt's positions are shared


def test_the_seed_and_the_weights_of_now_decide_the_samples(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    assert sampled(engine) == sampled(engine)
    assert tokens_of(sampled(engine)) != tokens_of(sampled(engine, seed=6))
    assert len({completion.tokens for row in sampled(engine, [PROMPTS[0]] * 3) for completion in row}) == 9
    before = sampled(engine)
    with torch.no_grad():
        llama.lm_head.weight.copy_(llama.lm_head.weight.flip(0))  # in float32 it is the model itself that is sampled from
    assert tokens_of(sampled(engine)) != tokens_of(before)
    engine.sync_weights(7)
    assert (before[0][0].policy_version, sampled(engine)[0][0].policy_version) == (0, 7)


def test_no_prompts_give_no_completions_and_an_empty_one_is_refused(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    assert sampled(engine, []) == []
    with pytest.raises(ValueError, match="at least one token"):
        sampled(engine, [[]])


def test_an_end_token_finishes_an_attempt_and_the_limit_truncates_it(llama, tokenizer):
    free = [completion for row in sampled(TransformersEngine(llama, tokenizer), max_new_tokens=30) for completion in row]
    assert all(completion.finish == "length" and len(completion.tokens) == 30 for completion in free if 1 not in completion.tokens)
    llama.generation_config.eos_token_id = [1, free[0].tokens[10], free[-1].tokens[4]]
    engine = TransformersEngine(llama, tokenizer)
    assert engine.end_tokens == frozenset(llama.generation_config.eos_token_id)
    ended = [completion for row in sampled(engine, max_new_tokens=30) for completion in row]
    for before, after in zip(free, ended, strict=True):
        places = [place for place, token in enumerate(before.tokens) if token in engine.end_tokens]
        assert after.finish == ("stop" if places else "length")
        assert after.tokens == (before.tokens[: places[0] + 1] if places else before.tokens)
        assert after.logprobs == pytest.approx(before.logprobs[: len(after.tokens)], abs=1e-4)
    assert {completion.finish for completion in ended} == {"stop", "length"}
    place = next(place for place in range(12) if free[0].tokens[place] not in free[0].tokens[:place] and place > 3)
    llama.generation_config.eos_token_id = free[0].tokens[place]
    at_the_limit = sampled(TransformersEngine(llama, tokenizer), PROMPTS[:1], num_samples=1, max_new_tokens=place + 1)[0][0]
    assert (at_the_limit.finish, at_the_limit.tokens) == ("stop", free[0].tokens[: place + 1])


def test_a_model_that_takes_no_cache_is_refused(tokenizer):
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=260, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(UserError, match="OpenAIGPTLMHeadModel takes no cache"):
        TransformersEngine(model, tokenizer)


def speaking(model, tokenizer, text):
    """The model, made to say `text` over and over: each token's embedding points to the logit of the next (no attention, no MLP)."""
    tokens = tokenizer(text)["input_ids"]
    assert len(set(tokens)) == len(tokens) <= model.config.hidden_size
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for place, token in enumerate(tokens):
            model.model.embed_tokens.weight[token, place] = 1
            model.lm_head.weight[tokens[(place + 1) % len(tokens)], place] = 10
    return tokens


@pytest.mark.parametrize(
    ("says", "stops", "text", "length"),
    [
        ("abcdefgh", ["def"], "bc", 5),
        ("abcdefgh", ["xyz", "gha", "h"], "bcdefg", 7),
        ("abcdefgh", ["b"], "", 1),
        ("abcdefgh", ["bd"], "bcdefghabcde", 12),
        ("abc<assistant>d", ["<assistant>"], "bc", 3),  # a special token
        ("aé本🙂", ["é本🙂a"], "", 10),  # 1 + 2 + 3 + 4 bytes, all different
    ],
)
def test_a_stop_string_is_found_across_tokens_and_cut_off(llama, tokenizer, says, stops, text, length):
    tokens = speaking(llama, tokenizer, says)
    (found,) = TransformersEngine(llama, tokenizer).generate([tokens[:1]], max_new_tokens=12, sampling=GREEDY, stop_strings=stops)[0]
    assert (found.text, len(found.tokens)) == (text, length)
    assert found.finish == ("stop" if length < 12 else "length")


def test_a_stop_string_is_found_across_two_extensions(llama, tokenizer):
    tokens = speaking(llama, tokenizer, "abcdefgh")
    engine, until = TransformersEngine(llama, tokenizer), Stop(strings=("def",))
    (first,) = engine.extend(engine.open([tokens[:1]]), 3, until=until, sampling=GREEDY, keys=[0])
    assert first.finish is None
    (second,) = engine.extend([first], 9, until=until, sampling=GREEDY, keys=[0])
    assert second.finish == "stop" and second.own_tokens == tuple(tokens[1:6])
    (third,) = engine.extend([first], 9, until=Stop(strings=("c",)), sampling=GREEDY, keys=[0])
    assert third.own_tokens == tuple((tokens * 2)[1:11])  # what was there before the extension does not stop it


@pytest.mark.parametrize("family", FAMILIES)
def test_extending_twice_equals_extending_once(model_of, tokenizer, family):
    engine = TransformersEngine(model_of(family), tokenizer)
    keys, options = [3, 4, 5, 6, 7], {"until": LIMIT, "sampling": SAMPLED}
    opened = engine.open(PROMPTS)
    once = engine.extend(opened, 12, keys=keys, **options)
    halfway = engine.extend(opened, 5, keys=keys, **options)
    twice = engine.extend(engine.extend(halfway, 4, keys=keys, **options), 3, keys=keys, **options)
    assert [prefix.tokens for prefix in twice] == [prefix.tokens for prefix in once]
    assert [prefix.own_tokens for prefix in twice] == [prefix.tokens[len(p) :] for prefix, p in zip(once, PROMPTS, strict=True)]
    for a, b in zip(once, twice, strict=True):
        assert a.own_logprobs == pytest.approx(b.own_logprobs, abs=1e-4)


def test_a_prefix_can_be_extended_many_times(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    first, second = engine.open(PROMPTS[:2])
    options = {"until": LIMIT, "sampling": SAMPLED}
    together = engine.extend([first, second, first, first], 8, keys=[1, 2, 3, 1], **options)
    assert together[0].tokens == together[3].tokens != together[2].tokens
    assert together[0].own_logprobs == pytest.approx(together[3].own_logprobs, abs=1e-4)  # rows of a product differ in the last bit
    for prefix, key, expected in ((first, 1, together[0]), (second, 2, together[1]), (first, 3, together[2])):
        (again,) = engine.extend([prefix], 8, keys=[key], **options)
        assert again.tokens == expected.tokens


def test_prefixes_of_different_batches_extend_together(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    options = {"until": LIMIT, "sampling": SAMPLED}
    apart = [engine.open([prompt])[0] for prompt in PROMPTS]
    expected = engine.extend(engine.open(PROMPTS), 6, keys=range(5), **options)
    assert [p.tokens for p in engine.extend(apart, 6, keys=range(5), **options)] == [p.tokens for p in expected]
    (longer,) = engine.extend(expected[:1], 2, keys=[0], **options)
    mixed = engine.extend([expected[0], apart[1]], 2, keys=[0, 1], **options)
    assert mixed[0].tokens == longer.tokens
    assert mixed[1].tokens == expected[1].tokens[: len(PROMPTS[1]) + 2]


def test_dead_prefixes_are_refused(llama, tokenizer):
    engine = TransformersEngine(llama, tokenizer)
    options = {"until": Stop(tokens=frozenset(range(260))), "sampling": SAMPLED, "keys": [0]}
    released, stale, alive = engine.open(PROMPTS[:3])
    engine.release([released])
    with pytest.raises(ValueError, match="released prefix"):
        engine.extend([released], 1, **options)
    (finished,) = engine.extend([alive], 5, **options)
    assert finished.finish == "stop" and len(finished.own_tokens) == 1
    with pytest.raises(ValueError, match=r"finished prefix \(stop\)"):
        engine.extend([finished], 1, **options)
    engine.sync_weights(1)
    with pytest.raises(ValueError, match="policy version 0, the engine is at 1"):
        engine.extend([stale], 1, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_leave_the_batch_do_not_change_the_rest(model_of, tokenizer, family, monkeypatch):
    engine = TransformersEngine(model_of(family), tokenizer)
    left = []
    watch(monkeypatch, "keep", lambda context, rows, room: left.append(len(rows)))
    until, prompts, keys = Stop(tokens=frozenset(range(4, 30))), prompts_of(*[7, 4, 12] * 4), list(range(12))
    together = engine.extend(engine.open(prompts), 25, until=until, sampling=Sampling(), keys=keys)
    assert left and left == sorted(left, reverse=True)
    assert len({len(prefix.own_tokens) for prefix in together}) > 3
    for prompt, key, prefix in zip(prompts, keys, together, strict=True):
        (alone,) = engine.extend(engine.open([prompt]), 25, until=until, sampling=Sampling(), keys=[key])
        assert (alone.tokens, alone.finish) == (prefix.tokens, prefix.finish)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_half_precision_copy_sees_new_weights_after_a_refresh(model_of, tokenizer, family):
    model = model_of(family)
    engine = TransformersEngine(model, tokenizer, dtype=torch.bfloat16)
    before = sampled(engine)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    assert sampled(engine) == before
    engine.sync_weights(0)
    after = sampled(engine)
    assert after == sampled(TransformersEngine(model, tokenizer, dtype=torch.bfloat16)) != before
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # GPT-2's layers are transposed
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma3"])
def test_a_copy_with_merged_adapters_equals_the_adapted_model(model_of, tokenizer, family):
    model = add_lora(model_of(family), LoRA(rank=2), seed=0)
    engine = TransformersEngine(model, tokenizer)
    plain = tokens_of(engine.generate(PROMPTS, max_new_tokens=10, sampling=GREEDY))
    assert plain == tokens_of(TransformersEngine(model_of(family), tokenizer).generate(PROMPTS, max_new_tokens=10, sampling=GREEDY))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    engine.sync_weights(1)
    adapted = engine.generate(PROMPTS, max_new_tokens=10, sampling=GREEDY)
    assert [list(row[0].tokens) for row in adapted] == [reference_greedy(model, prompt, 10) for prompt in PROMPTS]
    assert tokens_of(adapted) != plain


def test_batch_tokens_bound_the_samples_of_one_prompt_too(llama, tokenizer, monkeypatch):
    widths = []
    extend = TransformersEngine.extend
    monkeypatch.setattr(
        TransformersEngine,
        "extend",
        lambda self, prefixes, *args, **kw: widths.append(len(prefixes)) or extend(self, prefixes, *args, **kw),
    )
    whole = sampled(TransformersEngine(llama, tokenizer), num_samples=7)
    assert widths == [7 * len(PROMPTS)]
    parts = sampled(TransformersEngine(llama, tokenizer, batch_tokens=60), num_samples=7)
    assert tokens_of(parts) == tokens_of(whole)
    assert 1 + max(widths[1:]) * 12 <= 60 and 14 + widths[1] * 12 <= 60
    alone = sampled(TransformersEngine(llama, tokenizer, batch_tokens=1), num_samples=2)  # a row longer than that stands alone
    assert tokens_of(alone) == [row[:2] for row in tokens_of(whole)] and widths[-1] == 1


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()], ids=["greedy", "sampled"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_one_sentence(llama, tokenizer, sampling, value):
    with torch.no_grad():
        llama.model.norm.weight.fill_(value)
    with pytest.raises(UserError, match=r"the model's next-token logits are not finite: .* lower the learning rate"):
        TransformersEngine(llama, tokenizer).generate(PROMPTS, max_new_tokens=3, sampling=sampling)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offloaded_weights_come_back_with_a_sync(model_of, tokenizer, family, dtype):
    engine = TransformersEngine(model_of(family), tokenizer, dtype=dtype)
    before, (prefix,) = sampled(engine), engine.open(PROMPTS[:1])
    engine.offload_weights()
    for ask in (
        lambda: engine.open(PROMPTS),
        lambda: engine.extend([prefix], 1, until=LIMIT, sampling=GREEDY, keys=[0]),
    ):
        with pytest.raises(ValueError, match="weights were offloaded: call sync_weights"):
            ask()
    engine.sync_weights(0)
    assert sampled(engine) == before
