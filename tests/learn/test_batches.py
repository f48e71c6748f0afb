import itertools
import math

import numpy as np
import pytest
import torch
from transformers import FalconConfig, LlamaConfig, MambaConfig, Qwen3Config

from etude.learn.batches import can_share_prefixes, pack
from etude.learn.example import Example, demonstration
from etude.learn.logprobs import token_logprobs
from etude.models.heads import head_on_positions

GROUPS = [(7, [3, 1, 8]), (2, [5]), (12, [2, 2, 2, 2, 9]), (1, [4, 6])]
"""Prompt length, completion lengths."""
RELATED = [
    demonstration(prompt, completion)
    for prompt, completion in [
        ([9, 8, 7], [5, 4, 30]),
        ([9, 8, 7], [5, 4, 31]),
        ([9, 8, 7], [5, 4]),
        ([9, 8, 7], [5]),
        ([9, 8, 7], [5, 4, 30]),
        ([9, 8], [7, 5, 6]),
        ([9, 8, 6], [5, 4, 30]),
        ([4], [9, 8, 7]),
        ([9, 8, 7], [6, 6, 6, 6]),
    ]
]
"""Examples that part late, end early, come twice, continue another's prompt."""


def random_examples(groups=GROUPS, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def tokens(n):
        return torch.randint(4, 260, (n,), generator=generator).tolist()

    return [demonstration(prompt, tokens(length)) for prompt, lengths in [(tokens(p), c) for p, c in groups] for length in lengths]


def in_order(batches, values):
    """Flat values of many micro-batches, by example."""
    found = {}
    for batch, values_N in zip(batches, values, strict=True):
        for index in batch.example_N.unique().tolist():
            found[index] = values_N[batch.example_N == index]
    return torch.cat([found[index] for index in sorted(found)])


def logprobs_and_gradients(model, examples, **options):
    """Log-probs of all completion tokens by example, and the gradient of a random combination of them for every parameter."""
    batches = list(pack(examples, **{"batch_tokens": 10_000, "shares_prefixes": True} | options))
    logprobs = in_order(batches, [token_logprobs(model, batch).logprobs_N for batch in batches])
    weights = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    (weights * logprobs).sum().backward()
    return logprobs.detach(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same(found, expected):
    assert torch.allclose(found[0], expected[0], atol=1e-5)
    for name, gradient in expected[1].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item())), name


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_packed_rows_equal_plain_rows_in_value_and_gradient(model_of, family):
    model, examples = model_of(family), random_examples()
    plain = logprobs_and_gradients(model, examples, shares_prefixes=False)
    assert_same(logprobs_and_gradients(model, examples), plain)
    assert_same(logprobs_and_gradients(model, examples, batch_tokens=20), plain)
    assert_same(logprobs_and_gradients(model, examples, batch_tokens=1), plain)


def test_a_temperature_is_that_of_the_full_logits_in_value_and_gradient(model_of):
    model = model_of("llama").double()
    examples = random_examples()
    (batch,) = pack(examples, batch_tokens=10_000, shares_prefixes=True, temperatures=[0.6] * len(examples))
    outputs = token_logprobs(model, batch, torch.float64)
    with head_on_positions(model, batch.sources_M):
        logits_MV = model(
            input_ids=batch.tokens_BT, attention_mask=batch.attention_mask(), position_ids=batch.positions_BT, use_cache=False
        ).logits
    expected_N = (logits_MV / 0.6).log_softmax(-1).gather(-1, batch.targets_M[:, None])[:, 0][batch.triple_N]
    torch.testing.assert_close(outputs.logprobs_N, expected_N)
    weights = torch.linspace(-1, 1, len(expected_N), dtype=torch.float64)
    found, wanted = (torch.autograd.grad((weights * values).sum(), list(model.parameters())) for values in (outputs.logprobs_N, expected_N))
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_eager_attention_gets_plain_rows(model_of):
    model, examples = model_of("llama", attn_implementation="eager"), random_examples()
    assert not can_share_prefixes(model.config)
    found = logprobs_and_gradients(model, examples, shares_prefixes=False)
    assert_same(found, logprobs_and_gradients(model_of("llama"), examples, shares_prefixes=False))


@pytest.mark.parametrize("family", ["mistral-window", "gemma3", "lfm2", "mamba"])
def test_plain_rows_equal_one_row_at_a_time_where_windows_slide_or_states_pass_on(model_of, family):
    model, examples = model_of(family), random_examples()
    together = logprobs_and_gradients(model, examples, shares_prefixes=False)
    assert_same(logprobs_and_gradients(model, examples, shares_prefixes=False, batch_tokens=1), together)


@pytest.mark.parametrize("shares_prefixes", [True, False])
def test_padding_has_no_effect(llama, shares_prefixes):
    examples = random_examples([(200, [1, 3]), (150, [2, 2])])  # rows of different lengths, packed or not
    assert any((batch.ends_BT == 0).any() for batch in pack(examples, batch_tokens=10_000, shares_prefixes=shares_prefixes))
    zeros = logprobs_and_gradients(llama, examples, shares_prefixes=shares_prefixes, pad=0)
    assert_same(logprobs_and_gradients(llama, examples, shares_prefixes=shares_prefixes, pad=77), zeros)


def test_log_probs_and_entropy_are_those_of_the_full_logits(llama):
    examples = random_examples()
    (batch,) = pack(examples, batch_tokens=10_000, shares_prefixes=True)
    outputs = token_logprobs(llama, batch)
    for index, example in enumerate(examples):
        logits_TV = llama(input_ids=torch.tensor([[*example.prompt, *example.completion]])).logits[0, len(example.prompt) - 1 : -1]
        expected_T = logits_TV.log_softmax(-1).gather(-1, torch.tensor(example.completion)[:, None])[:, 0]
        mine = batch.example_N == index
        assert torch.allclose(outputs.logprobs_N[mine], expected_T, atol=1e-5)
        entropy_T = torch.distributions.Categorical(logits=logits_TV).entropy()
        assert torch.allclose(outputs.entropy_N[mine], entropy_T, atol=1e-4)
    assert outputs.logprobs_N.requires_grad and not outputs.entropy_N.requires_grad


def test_a_packed_row_by_hand():
    examples = [demonstration([10, 11], [20, 21, 22]), demonstration([10, 11], [20, 30]), demonstration([10, 12], [40, 41])]
    examples.append(examples[1])
    (batch,) = pack(examples, batch_tokens=100, shares_prefixes=True)
    assert batch.tokens_BT.tolist() == [[10, 11, 20, 21, 12, 40]]
    assert batch.positions_BT.tolist() == [[0, 1, 2, 3, 1, 2]]
    assert batch.ends_BT.tolist() == [[6, 4, 4, 4, 6, 6]]
    assert (batch.sources_M.tolist(), batch.targets_M.tolist()) == ([1, 2, 3, 2, 4, 5], [20, 21, 22, 30, 40, 41])
    assert batch.triple_N.tolist() == [0, 1, 2, 0, 3, 0, 3, 4, 5]
    assert batch.example_N.tolist() == [0, 0, 0, 1, 1, 3, 3, 2, 2]
    allowed = ["".join(map(str, row)) for row in batch.attention_mask()[0, 0].int().tolist()]
    assert allowed == ["100000", "110000", "111000", "111100", "100010", "100011"]


def test_padding_sees_itself_alone():
    (batch,) = pack([demonstration([10] * 80, [4]), demonstration([11] * 60, [4])], batch_tokens=2048, shares_prefixes=True)
    assert batch.tokens_BT.shape == (2, 80)
    mask = batch.attention_mask()[1, 0]
    assert torch.equal(mask[60:], torch.eye(80, dtype=torch.bool)[60:]) and not mask[:60, 60:].any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch_tokens", [10_000, 400])
def test_rows_are_cut_where_they_cost_least(seed, batch_tokens):
    generator = np.random.default_rng(seed)
    prompts = [generator.integers(4, 9, length).tolist() for length in generator.integers(1, 300, 3)]
    examples = [demonstration(prompts[k], generator.integers(4, 6, generator.integers(1, 60)).tolist()) for k in (0, 0, 0, 1, 1, 2, 2, 2)]
    order = sorted(examples, key=lambda example: (*example.prompt, *example.completion))

    def length(members):
        inputs = [(*example.prompt, *example.completion[:-1]) for example in members]
        return len({own[:end] for own in inputs for end in range(1, len(own) + 1)})  # of the tree that they make

    def cost(cuts):
        rows = [order[start:end] for start, end in itertools.pairwise([0, *cuts, len(order)])]
        lengths = [length(row) for row in rows]
        fits = all(n <= batch_tokens or len(row) == 1 for n, row in zip(lengths, rows, strict=True))
        return sum(n * (1 + n / 2048) for n in lengths) if fits else math.inf

    least = min(cost(cuts) for k in range(len(order)) for cuts in itertools.combinations(range(1, len(order)), k))
    batches = pack(examples, batch_tokens=batch_tokens, shares_prefixes=True)
    lengths = [int(n) for batch in batches for n in (batch.ends_BT > 0).sum(-1)]
    assert sum(n * (1 + n / 2048) for n in lengths) == pytest.approx(least)


@pytest.mark.parametrize("batch_tokens", [10_000, 12, 1])
def test_a_tree_equals_plain_rows_in_value_and_gradient(model_of, batch_tokens):
    model = model_of("llama").double()
    plain = logprobs_and_gradients(model, RELATED, shares_prefixes=False)
    assert_same(logprobs_and_gradients(model, RELATED, batch_tokens=batch_tokens), plain)


def test_a_plain_row_by_hand():
    examples = [demonstration([10, 11], [20, 21]), demonstration([10, 11], [30])]
    (batch,) = pack(examples, batch_tokens=100, shares_prefixes=False, pad=9)
    assert batch.tokens_BT.tolist() == [[10, 11, 20], [10, 11, 9]]
    assert batch.attention_mask().tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.sources_M.tolist() == [1, 2, 4]


@pytest.mark.parametrize("shares_prefixes", [True, False])
@pytest.mark.parametrize("batch_tokens", [1, 15, 40, 1000])
def test_micro_batches_stay_within_their_tokens_and_lose_nothing(shares_prefixes, batch_tokens):
    examples = random_examples()
    batches = list(pack(examples, batch_tokens=batch_tokens, shares_prefixes=shares_prefixes))
    assert all(batch.tokens_BT.numel() <= batch_tokens or len(batch.tokens_BT) == 1 for batch in batches)
    assert sorted(i for batch in batches for i in batch.example_N.unique().tolist()) == list(range(len(examples)))
    targets = in_order(batches, [batch.targets_M[batch.triple_N] for batch in batches])
    assert targets.tolist() == [token for example in examples for token in example.completion]


def test_prefixes_are_shared_only_where_every_layer_sees_everything(model_of):
    assert can_share_prefixes(model_of("llama").config) and can_share_prefixes(model_of("qwen3").config)
    assert can_share_prefixes(LlamaConfig()) and can_share_prefixes(Qwen3Config())
    assert not can_share_prefixes(model_of("mistral-window").config)
    assert not can_share_prefixes(model_of("gemma3").config)
    assert not can_share_prefixes(Qwen3Config(use_sliding_window=True, sliding_window=8, max_window_layers=1, num_hidden_layers=2))
    assert not can_share_prefixes(MambaConfig())
    assert not can_share_prefixes(FalconConfig(alibi=True))


def test_an_example_checks_its_lengths():
    with pytest.raises(ValueError, match="imitate has 1 numbers for 2 completion tokens"):
        Example((1,), (2, 3), imitate=(1.0,))
    with pytest.raises(ValueError, match="policy or the anchor stream needs behaviour_logprobs"):
        Example((1,), (2, 3), policy=(1.0, 1.0))
    for prompt, completion in (((), (2,)), ((1,), ())):
        with pytest.raises(ValueError, match="at least one prompt token and one completion token"):
            Example(prompt, completion)
