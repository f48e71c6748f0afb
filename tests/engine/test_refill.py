"""Prompts that wait take the places of completions that are over, and nothing that is drawn changes by it."""

import numpy as np
import pytest
import torch

from etude.engine.blocks import BlockContext
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.kernels.decoding import kernels_for

pytestmark = pytest.mark.skipif(not kernels_for(torch.device("cpu"), torch.float32), reason="there is no C++ compiler")

LENGTHS = (40, 3, 9, 35, 1, 20, 9, 33, 5, 2, 7, 12)


@pytest.fixture
def prompts():
    generator = np.random.default_rng(0)
    return [generator.integers(4, 260, length).tolist() for length in LENGTHS]


@pytest.fixture
def engine_of(model_of, tokenizer):
    def made(batch_tokens):
        engine = TransformersEngine(model_of("qwen3"), tokenizer, batch_tokens=batch_tokens)
        engine.end_tokens = frozenset(range(4, 40))  # completions end at different times
        return engine

    return made


def test_refilled_batches_draw_what_one_batch_draws(engine_of, prompts, monkeypatch):
    options = {"num_samples": 3, "max_new_tokens": 40, "sampling": Sampling(), "seed": 2}
    whole = engine_of(100_000).generate(prompts, **options)
    admitted, rows, batches = [], [], []
    admit, next_logits, extend = BlockContext.admit, BlockContext.next_logits, TransformersEngine.extend
    monkeypatch.setattr(BlockContext, "admit", lambda self, more: admitted.append(len(more.length_P)) or admit(self, more))
    monkeypatch.setattr(BlockContext, "next_logits", lambda self, tokens: rows.append(len(tokens)) or next_logits(self, tokens))
    monkeypatch.setattr(TransformersEngine, "extend", lambda self, *given, **named: batches.append(1) or extend(self, *given, **named))
    told = []
    parts = engine_of(650).generate(prompts, **options, on_complete=lambda place, completions: told.append(place))
    assert [[c.tokens for c in row] for row in parts] == [[c.tokens for c in row] for row in whole]
    for one, other in zip(parts, whole, strict=True):
        for mine, its in zip(one, other, strict=True):
            assert mine.logprobs == pytest.approx(its.logprobs, abs=1e-5) and (mine.finish, mine.text, mine.key) == (
                its.finish,
                its.text,
                its.key,
            )
    assert len({len(c.tokens) for row in whole for c in row}) > 5
    assert len(batches) < 3 and sum(admitted) >= 8 and max(rows) <= 4 * 3
    assert sorted(told) == list(range(len(prompts))) and told != sorted(told)


def test_prompts_with_more_samples_than_those_before_them_wait_for_as_many_places(engine_of, prompts, monkeypatch):
    """What waits goes from long to short: 1 sample for each of the longer ones, then 4 for each."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    numbers = {i: 1 if place < 6 else 4 for place, i in enumerate(order)}
    keys = [[1000 * i + sample for sample in range(numbers[i])] for i in range(len(prompts))]
    options = {"num_samples": 4, "max_new_tokens": 40, "sampling": Sampling(), "keys": keys}
    whole = engine_of(100_000).generate(prompts, **options)
    rows, next_logits = [], BlockContext.next_logits
    monkeypatch.setattr(BlockContext, "next_logits", lambda self, tokens: rows.append(len(tokens)) or next_logits(self, tokens))
    parts = engine_of(650).generate(prompts, **options)
    assert [[c.tokens for c in row] for row in parts] == [[c.tokens for c in row] for row in whole]
    assert [len(row) for row in parts] == [numbers[i] for i in range(len(prompts))] and max(rows) <= 4 * 3


def test_no_prompt_waits_where_all_fit(engine_of, prompts, monkeypatch):
    monkeypatch.setattr(BlockContext, "admit", None)
    found = engine_of(100_000).generate(prompts, num_samples=2, max_new_tokens=5, sampling=Sampling())
    assert [len(row) for row in found] == [2] * len(prompts)


def test_a_row_that_is_over_takes_no_more_room_while_younger_ones_go_on(engine_of, prompts):
    engine = engine_of(200)
    engine.end_tokens = frozenset(range(4, 9))  # many completions end by their length, which is all the room there is
    options = {"num_samples": 2, "max_new_tokens": 32, "sampling": Sampling(), "seed": 3}
    found = engine.generate(prompts * 3, **options)
    lengths = [len(completion.tokens) for row in found for completion in row]
    assert max(lengths) == 32 and min(lengths) < 20
    context = engine._shared.prefill([[5, 6]])[0].begin(torch.arange(1), 32, samples=1)
    with pytest.raises(ValueError, match="no room for another token: all 32 positions"):
        for _ in range(33):
            context.next_logits(torch.tensor([7]))
