"""Drafts change how long a completion takes, and nothing else."""

from itertools import chain, product

import numpy as np
import pytest
import torch

from etude.engine.blocks import BlockContext
from etude.engine.completion import Stop
from etude.engine.drafts import Tree
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.shared import SharedContext
from etude.engine.transformers import TransformersEngine

PROMPTS = [[5, 9, 200, 31, 7, 7], [40], [5, 9, 200, 8]]
KEYS = [[100 * i + j for j in range(4)] for i in range(len(PROMPTS))]
OPTIONS = {"num_samples": 4, "max_new_tokens": 12, "sampling": Sampling(temperature=0.8), "keys": KEYS}


def tokens_of(found):
    return [[completion.tokens for completion in row] for row in found]


def nudged(model, by):
    """Another policy, near the model's."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += by * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def steps(monkeypatch):
    """The numbers of rows of every decoding step."""
    rows = []
    for kind in (SharedContext, BlockContext):
        original = kind.next_logits

        def counted(context, tokens, original=original):
            rows.append(len(tokens))
            return original(context, tokens)

        monkeypatch.setattr(kind, "next_logits", counted)
    return rows


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("by", [0.0, 0.03, 0.3, 3.0])
def test_with_drafts_of_another_policy_attempts_are_those_without(model_of, tokenizer, family, by):
    drafts = tokens_of(TransformersEngine(model_of(family), tokenizer).generate(PROMPTS, **OPTIONS))
    engine = TransformersEngine(nudged(model_of(family), by), tokenizer)
    plain, found = engine.generate(PROMPTS, **OPTIONS), engine.generate(PROMPTS, **OPTIONS, drafts=drafts)
    assert tokens_of(found) == tokens_of(plain)
    assert [[c.finish for c in row] for row in found] == [[c.finish for c in row] for row in plain]
    for one, other in zip(chain(*found), chain(*plain), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert (one.text, one.key, one.policy_version) == (other.text, other.key, other.policy_version)


def test_an_unchanged_policy_takes_its_drafts_whole_and_decodes_nothing(llama, tokenizer, steps):
    engine = TransformersEngine(llama, tokenizer)
    drafts = tokens_of(engine.generate(PROMPTS, **OPTIONS))
    assert steps
    steps.clear()
    assert tokens_of(engine.generate(PROMPTS, **OPTIONS, drafts=drafts)) == drafts
    assert steps == []


def test_what_a_near_policy_decodes_is_less(model_of, tokenizer, steps):
    drafts = tokens_of(TransformersEngine(model_of("llama"), tokenizer).generate(PROMPTS, **OPTIONS))
    engine = TransformersEngine(nudged(model_of("llama"), 0.01), tokenizer)
    steps.clear()
    engine.generate(PROMPTS, **OPTIONS)
    plain, _ = sum(steps), steps.clear()
    found = tokens_of(engine.generate(PROMPTS, **OPTIONS, drafts=drafts))
    assert found != drafts
    assert 0 < sum(steps) < plain


@pytest.mark.parametrize("kind", ["empty", "short", "nonsense", "mixed", "too long"])
def test_any_draft_will_do(llama, tokenizer, kind):
    engine = TransformersEngine(llama, tokenizer)
    plain = tokens_of(engine.generate(PROMPTS, **OPTIONS))
    drafts = {
        "empty": [[()] * 4 for _ in PROMPTS],
        "short": [[own[:3] for own in row] for row in plain],
        "nonsense": [[(3,) * 12] * 4 for _ in PROMPTS],
        "mixed": [[row[0], (), row[1][:1], (77, 1)] for row in plain],
        "too long": [[(*own, 9, 9, 9) for own in row] for row in plain],
    }[kind]
    assert tokens_of(engine.generate(PROMPTS, **OPTIONS, drafts=drafts)) == plain


def test_an_end_within_a_draft_ends_the_completion(llama, tokenizer):
    plain = tokens_of(TransformersEngine(llama, tokenizer).generate(PROMPTS, **OPTIONS))
    llama.generation_config.eos_token_id = [1, plain[0][1][3]]
    engine = TransformersEngine(llama, tokenizer)
    expected = engine.generate(PROMPTS, **OPTIONS)
    found = engine.generate(PROMPTS, **OPTIONS, drafts=plain)
    assert tokens_of(found) == tokens_of(expected) != plain
    assert found[0][1].finish == "stop"


@pytest.mark.parametrize("options", [{"batch_tokens": 40}, {"batch_tokens": 1}])
def test_parts_of_a_batch_take_their_own_drafts(llama, tokenizer, options):
    drafts = tokens_of(TransformersEngine(llama, tokenizer).generate(PROMPTS, **OPTIONS))
    engine = TransformersEngine(nudged(llama, 0.05), tokenizer, **options)
    assert tokens_of(engine.generate(PROMPTS, **OPTIONS, drafts=drafts)) == tokens_of(engine.generate(PROMPTS, **OPTIONS))


@pytest.mark.parametrize("family", ["mistral-window", "lfm2"])
def test_where_drafts_are_of_no_use_attempts_are_the_same_all_the_same(model_of, tokenizer, family):
    engine = TransformersEngine(model_of(family), tokenizer)
    plain = tokens_of(engine.generate(PROMPTS, **OPTIONS))
    assert tokens_of(engine.generate(PROMPTS, **OPTIONS, drafts=[[(9, 9)] * 4 for _ in PROMPTS])) == plain


def test_greedy_drafts_follow_the_new_models_choice(model_of, tokenizer):
    greedy = OPTIONS | {"sampling": GREEDY}
    drafts = tokens_of(TransformersEngine(model_of("llama"), tokenizer).generate(PROMPTS, **greedy))
    engine = TransformersEngine(nudged(model_of("llama"), 0.1), tokenizer)
    assert tokens_of(engine.generate(PROMPTS, **greedy, drafts=drafts)) == tokens_of(engine.generate(PROMPTS, **greedy)) != drafts


def test_a_redrawn_prefix_can_be_extended(llama, tokenizer):
    engine, until = TransformersEngine(llama, tokenizer), Stop()
    how = {"until": until, "sampling": Sampling(), "keys": [3, 4]}
    whole = engine.extend(engine.open(PROMPTS[:2]), 9, **how)
    parts = engine.redraw(PROMPTS[:2], [prefix.own_tokens[:4] for prefix in whole], 6, **how)
    assert [prefix.tokens for prefix in engine.extend(parts, 3, **how)] == [prefix.tokens for prefix in whole]


def test_attempts_from_drafts_follow_the_new_policys_exact_distribution(model_of, tokenizer):
    """All completions of up to two tokens from six (1 is the end): chi-square against the new policy's own probabilities."""
    old, new = (model_of("llama", seed=seed, vocab_size=6, eos_token_id=1) for seed in (0, 1))
    draws, prompt = 6000, [[3, 5, 2]]
    options = {"num_samples": draws, "max_new_tokens": 2, "sampling": Sampling(temperature=3.0), "keys": [list(range(draws))]}
    drafts = tokens_of(TransformersEngine(old, tokenizer, batch_tokens=10**6).generate(prompt, **options))
    (found,) = tokens_of(TransformersEngine(new, tokenizer, batch_tokens=10**6).generate(prompt, **options, drafts=drafts))
    completions = [(1,), *(own for own in product(range(6), repeat=2) if own[0] != 1)]
    expected, before = (draws * np.array([probability(model, prompt[0], own, 3.0) for own in completions]) for model in (new, old))
    observed = np.array([found.count(own) for own in completions])
    assert expected.min() > 5 and expected.sum() == pytest.approx(draws, rel=1e-5) and observed.sum() == draws
    assert 0.05 < np.mean([one == other for one, other in zip(drafts[0], found, strict=True)]) < 0.95
    assert ((observed - expected) ** 2 / expected).sum() < 30 + 4 * 60**0.5
    assert ((observed - before) ** 2 / before).sum() > 10 * 30  # the test tells the two policies apart


def probability(model, prompt, own, temperature):
    with torch.inference_mode():
        logits_TV = model(input_ids=torch.tensor([[*prompt, *own]])).logits[0, len(prompt) - 1 : -1].double()
    return float((logits_TV / temperature).log_softmax(-1).gather(-1, torch.tensor(own)[:, None]).sum().exp())


def test_a_tree_holds_what_drafts_begin_with_once():
    tree = Tree.of([1, 2], [(5, 6, 7), (5, 6, 9), (5, 8, 8), (), (5, 6, 7, 4)])
    assert len(tree.tokens) == len({(1,), (1, 2), (1, 2, 5), (1, 2, 5, 6), (1, 2, 5, 8), (1, 2, 5, 6, 7)})
    seen = torch.isfinite(tree.bias_11TT(torch.float32)[0, 0])
    for path, draft in zip(tree.paths, [(5, 6), (5, 6), (5, 8), (), (5, 6, 7)], strict=True):
        assert [tree.tokens[place] for place in path] == [1, 2, *draft]
        assert [tree.positions[place] for place in path] == list(range(2 + len(draft)))
        assert seen[path[-1]].nonzero().flatten().tolist() == path
