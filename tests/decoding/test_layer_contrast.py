"""An earlier layer is taken off the last one as the formula says, in every architecture whose layers can be read."""

import numpy as np
import pytest
import torch

from etude.decoding.layer_contrast import NEVER, LayerContrast, contrasted_logprobs, divergence
from etude.decoding.logit_lens import LayerPart, LogitLens, layer_numbers
from etude.engine.completion import Stop
from etude.engine.copied import CopiedContext
from etude.engine.forward import find_forward
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.randomness import uniforms

FAMILIES = ["llama", "qwen3", "gpt2", "mamba", "gemma3", "lfm2"]
PROMPTS = [[10, 11, 12, 13], [40, 41], list(range(60, 75))]
SAMPLED = Sampling(temperature=0.8)


@torch.no_grad()
def reference(model, prompt, n, how, sampling, key=0):
    """Whole passes with all hidden states, token by token; transformers norms the last of these itself."""
    decoder, tokens = model.get_decoder(), []
    norm = [part for part in decoder.children() if "norm" in type(part).__name__.lower()][-1]
    while len(tokens) < n and model.config.eos_token_id not in tokens:
        found = model(torch.tensor([[*prompt, *tokens]]), output_hidden_states=True)
        final = found.logits[0, -1].log_softmax(-1)
        hidden = found.hidden_states
        if model.config.model_type == "mamba":  # which leaves out the embeddings
            hidden = (model.get_input_embeddings()(torch.tensor([[*prompt, *tokens]])), *hidden)
        states = [hidden[layer][0, -1] for layer in how.layers]
        early = [model.get_output_embeddings()(norm(each) if how.final_norm else each).log_softmax(-1) for each in states]
        means = [(final.exp() + each.exp()) / 2 for each in early]
        distances = [((final.exp() * (final - mean.log())).sum() + (each.exp() * (each - mean.log())).sum()) / 2
                     for each, mean in zip(early, means, strict=True)]  # fmt: skip
        place = int(torch.stack(distances).argmax())
        if how.choice == "random":
            length = len(prompt) + len(tokens)
            drawn = uniforms(np.array([[*prompt, *tokens][-1]]), np.array([length]))[0]
            place = int(drawn * len(early))
        scores = final - how.strength * early[place]
        scores[final.exp() < how.plausible * final.exp().max()] = -torch.inf
        own = (scores / (sampling.temperature or 1)).log_softmax(-1)
        drawn = float(uniforms(np.array([key]), np.array([len(tokens)]))[0])
        sampled = int(torch.searchsorted(own.exp().double().cumsum(0), drawn * own.exp().double().sum(), right=True))
        tokens.append(int(own.argmax()) if sampling.is_greedy else sampled)
    return tokens


def answers(model, tokenizer, how, sampling=GREEDY, prompts=PROMPTS):
    engine = TransformersEngine(model, tokenizer)
    found = engine.generate(prompts, max_new_tokens=10, sampling=sampling, keys=[[key] for key in range(len(prompts))], view=how)
    return [completion for (completion,) in found]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "how",
    [
        LayerContrast((1,)),
        LayerContrast((0, 1)),
        LayerContrast((0, 1), strength=0.5, plausible=0.3),
        LayerContrast((0, 1), final_norm=False),
        LayerContrast((0, 1), choice="random"),
    ],
    ids=["static", "dynamic", "weak", "without norm", "random"],
)
def test_answers_are_those_of_a_slow_reference(model_of, tokenizer, family, how):
    model = model_of(family)
    for sampling in (GREEDY, SAMPLED):
        for key, (found, prompt) in enumerate(zip(answers(model, tokenizer, how, sampling), PROMPTS, strict=True)):
            assert list(found.tokens) == reference(model, prompt, 10, how, sampling, key)
            assert found.view == "layer contrast"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_without_strength_it_is_plain_decoding(model_of, tokenizer, family, sampling):
    model = model_of(family)
    found = answers(model, tokenizer, LayerContrast((0, 1), strength=0.0), sampling)
    plain = TransformersEngine(model, tokenizer).generate(PROMPTS, max_new_tokens=10, sampling=sampling, keys=[[0], [1], [2]])
    assert [each.tokens for each in found] == [each.tokens for (each,) in plain]
    assert [each.tokens for each in answers(model, tokenizer, LayerContrast((1,)))] != [each.tokens for (each,) in plain]


def test_a_random_layer_is_now_one_and_now_the_other(model_of, tokenizer):
    model, prompts = model_of("llama"), [[token, token + 1] for token in range(20, 60)]
    found = answers(model, tokenizer, LayerContrast((0, 1), choice="random"), prompts=prompts)
    alone = [answers(model, tokenizer, LayerContrast((layer,)), prompts=prompts) for layer in (0, 1)]
    firsts = [[each.tokens[0] for each in own] for own in (found, *alone)]
    same = [sum(mine == its for mine, its in zip(firsts[0], own, strict=True)) for own in firsts[1:]]
    assert all(0 < number < len(prompts) for number in same)


@pytest.mark.parametrize("family", ["llama", "gpt2", "lfm2"])
def test_likelihoods_under_a_contrast_are_those_of_its_answers(model_of, tokenizer, family):
    model = model_of(family, eos_token_id=None) if family != "lfm2" else model_of(family)
    for how in (LayerContrast((0, 1)), LayerContrast((0, 1), choice="random"), LayerContrast((1,), strength=0.0)):
        engine = TransformersEngine(model, tokenizer)
        drawn = [each for (each,) in engine.generate(PROMPTS, max_new_tokens=6, sampling=Sampling(), keys=[[1], [2], [3]], view=how)]
        for prompt, each in zip(PROMPTS, drawn, strict=True):
            others = [(5, 6), (7, *each.tokens), (8,)]  # beside which it is the same
            found = contrasted_logprobs(model, how, tuple(prompt), [*others, each.tokens, *others])
            assert found[3] == pytest.approx(each.logprobs, abs=1e-4)
            assert found[1][1:] == pytest.approx(contrasted_logprobs(model, how, (*prompt, 7), [each.tokens])[0], abs=1e-4)
            assert found[:3] == found[4:] and list(map(len, found[:3])) == list(map(len, others))


@torch.no_grad()
def test_without_strength_likelihoods_are_the_models_own_and_what_is_never_said_is_a_number(llama):
    prompt, completion = (10, 11, 12), (20, 21, 22)
    logits = llama(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
    own = [float(logits[2 + place, token]) for place, token in enumerate(completion)]
    assert contrasted_logprobs(llama, LayerContrast((1,), strength=0.0), prompt, [completion])[0] == pytest.approx(own, abs=1e-4)
    worst = tuple(int(logits[2 + place].argmin()) for place in range(1))
    assert contrasted_logprobs(llama, LayerContrast((1,)), prompt, [worst]) == [(NEVER,)]


def test_divergence_is_0_of_equal_distributions_and_log_2_of_disjoint_ones():
    first = torch.tensor([[0.5, 0.5, 0.0], [0.7, 0.2, 0.1]]).clamp(min=1e-30).log()
    second = torch.tensor([[0.0, 0.0, 1.0], [0.7, 0.2, 0.1]]).clamp(min=1e-30).log()
    assert divergence(first, second).tolist() == pytest.approx([np.log(2), 0.0], abs=1e-6)


def test_a_view_leaves_no_hooks_also_where_layers_that_are_not_there_are_refused(llama, tokenizer):
    answers(llama, tokenizer, LayerContrast((0, 1)))
    for layers, said in (((2,), "layer 2 can't be set against"), ((-1,), "layer -1 can't"), ((), "no layer to set")):
        with pytest.raises(UserError, match=said):
            answers(llama, tokenizer, LayerContrast(layers))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in llama.modules())


def test_layers_have_names_and_parts_are_all_of_them_in_order(model_of):
    plain, tied = model_of("llama", num_hidden_layers=8), model_of("qwen3", num_hidden_layers=8)
    assert [layer_numbers(plain, name) for name in ("low", "high", "middle")] == [(0, 2), (4, 6), (4,)]
    assert [layer_numbers(tied, name) for name in ("low", "high", "middle")] == [(2,), (4, 6), (4,)]
    assert [layer_numbers(plain, LayerPart(number, 3)) for number in range(3)] == [(0,), (2,), (4, 6)]
    assert [layer_numbers(tied, LayerPart(number, 2)) for number in range(2)] == [(2,), (4, 6)]
    of_all = [layer_numbers(tied, LayerPart(number, 4)) for number in range(4)]  # since every other has 3
    assert of_all == [(1,), (2, 3), (4, 5), (6, 7)]
    with pytest.raises(UserError, match="is 8, but this model has 7 layers to make sets of"):
        layer_numbers(tied, LayerPart(0, 8))


def test_a_model_with_more_than_norm_and_head_after_its_last_layer_is_refused(llama):
    lens = LogitLens(llama, (1,))
    with lens.reading(), torch.no_grad():
        logits = llama(torch.tensor([[1, 2, 3]])).logits[:, -1]
    lens.check(logits)
    with pytest.raises(UserError, match="does more between its last layer and its logits"):
        lens.check(torch.tanh(logits) * 2)


def test_a_view_refuses_prefixes_before_and_after_it(llama, tokenizer):
    engine, view = TransformersEngine(llama, tokenizer), LayerContrast((1,))
    with pytest.raises(ValueError, match="a view opens whole prompts"):
        engine.open([[1]], engine.open([[2]]), view=view)
    with pytest.raises(ValueError, match="nothing can follow it"):
        engine.open([[1]], engine.open([[2]], view=view))


@pytest.mark.parametrize("family", ["llama", "qwen3", "mamba"])
def test_what_a_view_opens_is_extended_by_it_however_often(model_of, tokenizer, family):
    engine, how = TransformersEngine(model_of(family), tokenizer), {"until": Stop(), "sampling": GREEDY}
    for view in (LayerContrast((1,)), LayerContrast((0, 1))):
        opened = engine.open(PROMPTS, view=view)
        once = engine.extend(opened, 8, keys=range(3), **how)
        twice = engine.extend(engine.extend(opened, 3, keys=range(3), **how), 5, keys=range(3), **how)
        apart = [engine.open([prompt], view=view)[0] for prompt in PROMPTS]
        together = engine.extend(apart, 8, keys=range(3), **how)
        assert [each.tokens for each in once] == [each.tokens for each in twice] == [each.tokens for each in together]
        again = engine.extend([engine.cut(each, 3) for each in once], 5, keys=range(3), **how)
        assert [each.tokens for each in again] == [each.tokens for each in once]
    with pytest.raises(ValueError, match="of different views"):
        engine.extend([*once[:1], *engine.open([[5]])], 2, keys=[1, 2], **how)


def test_a_lens_keeps_the_last_positions_alone(llama):
    lens = LogitLens(llama, (0, 1))
    with lens.reading(), torch.no_grad():
        llama(torch.tensor([list(range(4, 104))]))
    states = [lens.states(layer) for layer in (0, 1, 2)]
    assert all(state.shape == (1, 32) and state.untyped_storage().nbytes() == state.nbytes for state in states)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("choice", ["divergence", "random"])
@torch.inference_mode()
def test_the_engines_own_pass_contrasts_as_transformers_does(model_of, family, choice, monkeypatch):
    model, view = model_of(family, num_hidden_layers=4), LayerContrast((0, 1, 3), choice=choice)
    shared = find_forward(model, model)
    monkeypatch.setattr("etude.engine.prefill._PREFILL_TOKENS", 5)  # prompts in parts
    monkeypatch.setattr("etude.decoding.logit_lens._TOGETHER", 6)  # and two layers at once
    ways = [view.prefill(model, PROMPTS, 0, way) for way in (None, shared)]
    contexts = [opened.begin(torch.arange(3), 4, samples=4) for opened, _ in ways]
    found = [[logits] for _, logits in ways]
    for rows in ([0, 1, 1, 2], [0, 2, 3], [1]):
        for own, context in zip(found, contexts, strict=True):
            context.keep(torch.tensor(rows), 4)
            own.append(context.next_logits(torch.tensor(rows) + 20))
    assert isinstance(contexts[0].inner, CopiedContext) and not isinstance(contexts[1].inner, CopiedContext)
    for first, second in zip(*found, strict=True):
        assert bool((first.isinf() == second.isinf()).all())
        assert torch.allclose(first, second, atol=1e-3)


def test_a_whole_forward_of_long_completions_is_read_in_parts(llama, monkeypatch):
    completions, how = [tuple(range(5, 5 + length)) for length in (9, 1, 4, 6, 2)], LayerContrast((0, 1), plausible=0.0)
    whole = contrasted_logprobs(llama, how, (3, 4), completions)
    monkeypatch.setattr("etude.decoding.logit_lens._TOGETHER", 8)
    for one, other in zip(whole, contrasted_logprobs(llama, how, (3, 4), completions), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert contrasted_logprobs(llama, how, (4,), completions)[0][1:] != pytest.approx(whole[0][1:], abs=1e-4)  # the prompt is read
