"""Several inputs that are decoded as one give the answer of a slow reference, whatever is decoded beside them."""

import numpy as np
import pytest
import torch

from etude.engine.joint import JOINS, mean, product
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.randomness import uniforms

FAMILIES = ["llama", "qwen3", "gpt2", "mamba", "gemma3"]
GROUPS = [[[10, 11, 12, 13], [40, 41], list(range(60, 75))], [[7, 8, 9]], [[33, 34, 35, 36], [33, 34, 35, 37]]]
SAMPLED = Sampling(temperature=0.8)


def answers(engine, groups=GROUPS, n=12, keys=(5, 6, 7), sampling=GREEDY, **options):
    opened = iter(engine.open([prompt for group in groups for prompt in group]))
    prefixes = [[next(opened) for _ in group] for group in groups]
    return engine.extend_joint(prefixes, n, sampling=sampling, keys=keys[: len(groups)], **options)


@torch.no_grad()
def reference(model, group, n, key, sampling, join):
    """Every input in a pass of its own, whole, for every token; returns tokens, log-probs and the share that would have chosen them."""
    inputs, tokens, logprobs, agreement = [list(prompt) for prompt in group], [], [], []
    while len(tokens) < n and model.config.eos_token_id not in tokens:
        each = torch.stack([model(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in inputs])
        joined = each.mean(0) if join is product else each.exp().mean(0).log()
        own = (joined / (sampling.temperature or 1)).log_softmax(-1)
        if sampling.is_greedy:
            token = int(own.argmax())
        else:
            drawn = float(uniforms(np.array([key]), np.array([len(tokens)]))[0])
            token = int(torch.searchsorted(own.exp().double().cumsum(0), drawn * own.exp().double().sum(), right=True))
        tokens, logprobs = [*tokens, token], [*logprobs, float(own[token])]
        agreement.append(float((each.argmax(-1) == token).float().mean()))
        inputs = [[*row, token] for row in inputs]
    return tokens, logprobs, agreement


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_joint_answer_is_that_of_a_slow_reference(model_of, tokenizer, family, sampling, name):
    model = model_of(family)
    found = answers(TransformersEngine(model, tokenizer), sampling=sampling, join=JOINS[name])
    for answer, group, key in zip(found, GROUPS, (5, 6, 7), strict=True):
        tokens, logprobs, agreement = reference(model, group, 12, key, sampling, JOINS[name])
        assert list(answer.completion.tokens) == tokens
        assert answer.completion.logprobs == pytest.approx(logprobs, abs=1e-4)
        assert answer.agreement == pytest.approx(agreement)
        assert answer.completion.view == "joint"


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_that_are_all_the_same_get_the_plain_answer_with_its_log_probs(model_of, tokenizer, family, copies, name):
    engine = TransformersEngine(model_of(family), tokenizer)
    prompts = [group[0] for group in GROUPS]
    plain = engine.generate(prompts, max_new_tokens=12, sampling=SAMPLED, keys=[[5], [6], [7]])
    found = answers(engine, [[prompt] * copies for prompt in prompts], sampling=SAMPLED, join=JOINS[name])
    for answer, (completion,) in zip(found, plain, strict=True):
        assert answer.completion.tokens == completion.tokens
        assert answer.completion.logprobs == pytest.approx(completion.logprobs, abs=1e-4)
        assert (answer.completion.finish, answer.completion.text) == (completion.finish, completion.text)


@pytest.mark.parametrize("family", ["qwen3", "llama", "mamba"])
def test_an_input_of_several_groups_parts_there(model_of, tokenizer, family):
    model = model_of(family)
    shared, other, third = [10, 11, 12, 13], [40, 41], list(range(60, 75))
    engine = TransformersEngine(model, tokenizer)
    first, second, last = engine.open([shared, other, third])
    found = engine.extend_joint([[first, second], [last, first], [first, first, second]], 8, sampling=GREEDY, keys=[0, 0, 0])
    for answer, group in zip(found, ([shared, other], [third, shared], [shared, shared, other]), strict=True):
        assert list(answer.completion.tokens) == reference(model, group, 8, 0, GREEDY, product)[0]


def test_an_input_that_stands_in_a_group_twice_is_computed_once(model_of, tokenizer):
    engine = TransformersEngine(model_of("qwen3", eos_token_id=None), tokenizer)
    engine.end_tokens = frozenset()
    first, second = engine.open([[10, 11], [40, 41]])
    before = engine.computed_tokens
    engine.extend_joint([[first, first, first, second]], 9, sampling=GREEDY, keys=[0])
    assert engine.computed_tokens - before == 2 * 8


def test_groups_that_are_over_leave_and_the_others_go_on_as_they_were(model_of, tokenizer):
    model = model_of("qwen3")
    engine = TransformersEngine(model, tokenizer)
    groups = [[[first, 9], [first, 7, 6]] for first in range(20, 60)]
    whole = answers(engine, groups, n=32, keys=range(40), sampling=Sampling(temperature=3.0))
    lengths = {len(answer.completion.tokens) for answer in whole}
    assert len(lengths) > 3 and max(lengths) == 32
    for number in range(0, 40, 7):
        (alone,) = answers(engine, [groups[number]], n=32, keys=[number], sampling=Sampling(temperature=3.0))
        assert alone.completion.tokens == whole[number].completion.tokens
        assert alone.agreement == pytest.approx(whole[number].agreement)


def test_joined_distributions_by_hand():
    logits = torch.tensor([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5]]).log() + torch.tensor([[3.0], [-1.0], [0.0]])  # any constant is the same
    groups, weights = torch.tensor([0, 0, 1]), torch.tensor([0.75, 0.25, 1.0])
    by_mean = mean(logits, groups, weights, 2).softmax(-1)
    assert by_mean.tolist() == [pytest.approx([0.65, 0.35]), pytest.approx([0.5, 0.5])]
    by_product = product(logits, groups, weights, 2).softmax(-1)
    assert by_product[0].tolist() == pytest.approx([2 / 3, 1 / 3])  # 0.8^.75 0.2^.25 : 0.2^.75 0.8^.25 = 2 : 1
    assert by_product[1].tolist() == pytest.approx([0.5, 0.5])


def test_a_joint_answer_ends_at_a_stop_string_and_needs_a_prefix(model_of, tokenizer):
    engine = TransformersEngine(model_of("llama"), tokenizer)
    (whole,) = answers(engine, GROUPS[:1], n=12)
    text = whole.completion.text
    (ended,) = answers(engine, GROUPS[:1], n=12, stop_strings=[text[3:5]])
    assert (ended.completion.text, ended.completion.finish) == (text[: text.index(text[3:5])], "stop")
    assert len(ended.agreement) == len(ended.completion.tokens)
    with pytest.raises(ValueError, match="a group needs at least one prefix"):
        engine.extend_joint([engine.open([[1]]), []], 3, sampling=GREEDY, keys=[0, 0])


@pytest.mark.parametrize("join", [product, mean])
def test_what_one_group_can_never_say_leaves_the_others_alone(join):
    logits_BV = torch.tensor([[0.0, float("-inf")], [1.0, 2.0]])
    joined_GV = join(logits_BV, torch.tensor([0, 1]), torch.ones(2), 2)
    assert joined_GV[0, 1] == float("-inf") and joined_GV.softmax(-1)[1].tolist() == pytest.approx(logits_BV[1].softmax(-1).tolist())
