"""Prefixes that were extended are extended again without computing anything twice."""

import re

import pytest
import torch

from etude.engine.completion import Stop
from etude.engine.fused import FusedForward
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine

PROMPTS = [list(range(10, 19)), [40, 41, 42], list(range(60, 101))]
HOW = {"until": Stop(), "sampling": Sampling()}


@pytest.fixture
def engine(model_of, tokenizer):
    return TransformersEngine(model_of("qwen3"), tokenizer)  # whose heads are wide enough for the kernels


def inputs_of(prefixes):
    """Every distinct row of tokens that has been given to the model: all beginnings but for the last token."""
    return {tuple(prefix.tokens[:end]) for prefix in prefixes for end in range(1, len(prefix.tokens))}


def test_a_tree_of_extensions_computes_every_position_once(engine):
    opened = engine.open(PROMPTS)
    assert engine.computed_tokens == sum(map(len, PROMPTS))
    level, every = opened, []
    for depth in range(4):
        chosen = [prefix for prefix in level for _ in range(2)]
        level = engine.extend(chosen, 5 + depth, keys=range(100 * depth, 100 * depth + len(chosen)), **HOW)
        every += level
        if depth == 1:
            inner = level
    assert engine.computed_tokens == len(inputs_of([*opened, *every]) | {tuple(prompt) for prompt in PROMPTS})
    for n, first in ((3, 500), (1, 600)):
        before, old = engine.computed_tokens, [*inner, *opened, *inner[:2]]
        again = engine.extend(old, n, keys=range(first, first + len(old)), **HOW)
        pairs = [(longer.tokens, len(own.tokens)) for longer, own in zip(again, old, strict=True)]
        drawn = {tokens[:end] for tokens, length in pairs for end in range(length + 1, len(tokens))}
        assert engine.computed_tokens - before == len(drawn)


def test_what_is_extended_again_gets_what_it_would_have_got_the_first_time(engine):
    (opened,) = engine.open(PROMPTS[:1])
    (longer,) = engine.extend([opened], 5, keys=[1], **HOW)
    (same,) = engine.extend([opened], 5, keys=[1], **HOW)
    assert longer is not same and longer.tokens == same.tokens
    (first,) = engine.extend([longer], 9, keys=[4], **HOW)
    before = engine.computed_tokens
    second, other, third = engine.extend([longer, same, longer], 9, keys=[4, 4, 5], **HOW)
    assert engine.computed_tokens - before == 8 + len(inputs_of([third]) - inputs_of([first]) - {longer.tokens})
    assert first.tokens == second.tokens == other.tokens != third.tokens
    assert second.own_logprobs == pytest.approx(first.own_logprobs, abs=1e-5)
    again = [engine.extend([each], 6, keys=[8], **HOW)[0] for each in (first, second, other)]
    assert again[0].tokens == again[1].tokens == again[2].tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_gives_the_tokens_that_computing_it_anew_gives(model_of, tokenizer, dtype):
    engine, anew = (TransformersEngine(model_of("qwen3"), tokenizer, dtype=dtype) for _ in range(2))
    kept, recomputed = engine.open(PROMPTS), anew.open(PROMPTS)
    for depth, n in enumerate([1, 40, 3, 33, 2]):
        keys = [seed + 50 * depth for seed in (0, 1, 2, 0, 4)]
        kept = engine.extend([kept[i] for i in (0, 1, 1, 2, 2)][: len(keys)], n, keys=keys, **HOW)[:3]
        recomputed = anew.extend([recomputed[i] for i in (0, 1, 1, 2, 2)], n, keys=keys, keeps=False, **HOW)[:3]
        for mine, its in zip(kept, recomputed, strict=True):
            assert mine.tokens == its.tokens
            assert mine.own_logprobs == pytest.approx(its.own_logprobs, abs=1e-4 if dtype == torch.float32 else 0.3)
    assert engine.computed_tokens < anew.computed_tokens / 1.5


def test_a_cut_prefix_goes_on_from_there_and_nothing_is_computed_again(engine):
    (opened,) = engine.open(PROMPTS[:1])
    (long,) = engine.extend([opened], 20, keys=[7], **HOW)
    for number in (1, 6, 19, 20):
        cut, before = engine.cut(long, number), engine.computed_tokens
        assert (cut.own_tokens, cut.own_logprobs) == (long.own_tokens[:number], long.own_logprobs[:number])
        (again,) = engine.extend([cut], 22 - number, keys=[7], **HOW)
        assert again.own_tokens[:20] == long.own_tokens
        assert engine.computed_tokens - before == (21 - number if number < 20 else 2)  # of the whole the last was not computed
        assert again.own_logprobs[:20] == pytest.approx(long.own_logprobs, abs=1e-4)
    for number in (0, 21):
        with pytest.raises(ValueError, match="num_own_tokens must be from 1 to 20"):
            engine.cut(long, number)


def test_where_a_forward_pass_keeps_nothing_of_its_head_a_cut_prefix_computes_its_last_token_again(model_of, tokenizer, monkeypatch):
    monkeypatch.setattr(FusedForward, "fits", lambda model: False)
    engine = TransformersEngine(model_of("qwen3"), tokenizer)
    (opened,) = engine.open(PROMPTS[:1])
    (long,) = engine.extend([opened], 20, keys=[7], **HOW)
    cut, before = engine.cut(long, 6), engine.computed_tokens
    for computed in (16, 31):  # the logits are kept from then on
        (again,) = engine.extend([cut], 22 - 6, keys=[7], **HOW)
        assert again.own_tokens[:20] == long.own_tokens
        assert engine.computed_tokens - before == computed


def test_a_finished_prefix_can_be_cut_and_extended(engine):
    (opened,) = engine.open(PROMPTS[:1])
    (whole,) = engine.extend([opened], 12, keys=[3], **HOW)
    (finished,) = engine.extend([opened], 12, keys=[3], until=Stop(frozenset(whole.own_tokens[6:7])), sampling=Sampling())
    assert finished.finish == "stop"
    (again,) = engine.extend([engine.cut(finished, 3)], 9, keys=[3], **HOW)
    assert again.own_tokens == whole.own_tokens


def test_prompts_and_longer_prefixes_are_extended_together_without_computing_prompts_again(engine):
    first, second, third = (engine.open([prompt])[0] for prompt in PROMPTS)
    (longer,) = engine.extend([second], 4, keys=[1], **HOW)
    before = engine.computed_tokens
    together = engine.extend([first, longer, third, first], 6, keys=[0, 1, 2, 3], **HOW)
    assert engine.computed_tokens - before == 3 * 5 + 6
    for prefix, key, n, found in ((first, 0, 6, 0), (second, 1, 10, 1), (third, 2, 6, 2), (first, 3, 6, 3)):
        (alone,) = engine.extend([prefix], n, keys=[key], **HOW)
        assert alone.own_tokens == together[found].own_tokens


def test_each_prefix_may_get_a_number_of_tokens_of_its_own(engine):
    opened = engine.open(PROMPTS)
    apart = [engine.extend([prefix], n, keys=[n], **HOW)[0] for prefix, n in zip(opened, (3, 9, 5), strict=True)]
    assert [prefix.tokens for prefix in engine.extend(opened, [3, 9, 5], keys=[3, 9, 5], **HOW)] == [prefix.tokens for prefix in apart]
    with pytest.raises(ValueError, match="n is 0 for some"):
        engine.extend(opened, [3, 0, 5], keys=[3, 9, 5], **HOW)


def test_a_pause_ends_a_step_and_not_the_answer(model_of, tokenizer):
    engine = TransformersEngine(model_of("qwen3"), tokenizer)
    opened = engine.open(PROMPTS[:1]) * 6
    whole = engine.extend(opened, 60, keys=range(6), **HOW)
    step = Stop(pause=re.compile("[aeiou]"))
    going, ends = opened, [[] for _ in opened]
    for _ in range(3):
        going = engine.extend(going, [60 - len(prefix.own_tokens) for prefix in going], until=step, keys=range(6), sampling=Sampling())
        for own, prefix in zip(ends, going, strict=True):
            own.append(len(prefix.own_tokens))
        if any(len(prefix.own_tokens) == 60 for prefix in going):
            break
    assert any(own[0] < 60 for own in ends)
    for prefix, own, all_of_it in zip(going, ends, whole, strict=True):
        assert prefix.finish is None and prefix.own_tokens == all_of_it.own_tokens[: own[-1]]
        for start, end in zip([0, *own], own, strict=False):
            text = engine.text_of(prefix.own_tokens[start:end])
            assert not re.search("[aeiou]", engine.text_of(prefix.own_tokens[start : end - 1]))
            assert end == 60 or re.search("[aeiou]", text)


def test_where_nothing_can_be_kept_it_is_computed_anew(model_of, tokenizer):
    engine = TransformersEngine(model_of("mistral-window"), tokenizer)
    (opened,) = engine.open(PROMPTS[:1])
    (once,) = engine.extend([opened], 12, keys=[3], until=Stop(), sampling=GREEDY)
    (half,) = engine.extend([opened], 7, keys=[3], until=Stop(), sampling=GREEDY)
    (twice,) = engine.extend([engine.cut(half, 5)], 7, keys=[3], until=Stop(), sampling=GREEDY)
    assert twice.tokens == once.tokens


@pytest.mark.parametrize("origin", ["not kept", "of no tokens"])
def test_what_was_not_kept_once_is_extended_twice_all_the_same(engine, origin):
    (opened,) = engine.open(PROMPTS[:1])
    (whole,) = engine.extend([opened], 20, keys=[3], **HOW)
    (first,) = engine.extend([opened], 6 if origin == "not kept" else 0, keys=[3], keeps=origin != "not kept", **HOW)
    (second,) = engine.extend([first], 5, keys=[3], **HOW)
    (kept,) = engine.extend([opened], 9, keys=[3], **HOW)
    third, beside = engine.extend([second, kept], [20 - len(second.own_tokens), 11], keys=[3, 3], **HOW)
    mixed, _ = engine.extend([kept, first], [11, 1], keys=[3, 3], **HOW)
    assert third.own_tokens == beside.own_tokens == mixed.own_tokens == whole.own_tokens
    assert mixed.own_logprobs == pytest.approx(whole.own_logprobs, abs=1e-4)
    (again,) = engine.extend([engine.cut(mixed, 15)], 5, keys=[3], **HOW)
    assert again.own_tokens == whole.own_tokens


def test_room_for_others_and_what_is_kept_exclude_each_other(engine):
    with pytest.raises(ValueError, match="keeps or refill"):
        engine.extend(engine.open(PROMPTS[:1]), 3, keys=[0], refill=lambda going: None, **HOW)


def test_prompts_stand_behind_what_was_drawn_and_nothing_is_computed_again(engine):
    opened = engine.open(PROMPTS[:2])
    drawn = engine.extend([*opened, opened[0]], 6, keys=[1, 2, 3], **HOW)
    behind, tails = [opened[1], drawn[0], drawn[0], drawn[2]], [[7, 8, 9], [5], [6, 6], list(range(100, 140))]
    before = engine.computed_tokens
    found = engine.open(tails, behind)
    assert engine.computed_tokens - before == sum(map(len, tails)) + 3  # the last token of each that was drawn
    whole = [[*prefix.tokens, *tail] for prefix, tail in zip(behind, tails, strict=True)]
    assert [(prefix.tokens, prefix.own_tokens) for prefix in found] == [(tuple(tokens), ()) for tokens in whole]
    anew = engine.extend(engine.open(whole), 8, keys=range(4), **HOW)
    for mine, its in zip(engine.extend(found, 8, keys=range(4), **HOW), anew, strict=True):
        assert mine.tokens == its.tokens
        assert mine.own_logprobs == pytest.approx(its.own_logprobs, abs=1e-4)


@pytest.mark.parametrize("family", ["qwen3", "llama", "mamba"])
def test_prompts_stand_behind_others_whatever_is_kept_of_these(model_of, tokenizer, family):
    engine = TransformersEngine(model_of(family), tokenizer)
    opened = engine.open(PROMPTS)
    (ended,) = engine.extend(opened[:1], 3, until=Stop(frozenset(range(260))), sampling=Sampling(), keys=[0])
    assert ended.finish == "stop"
    found = engine.open([[3, 4], [5]], [ended, opened[2]])
    whole = engine.open([[*ended.tokens, 3, 4], [*PROMPTS[2], 5]])
    both = [engine.extend(prefixes, 6, keys=[1, 2], **HOW) for prefixes in (found, whole)]
    assert [prefix.tokens for prefix in both[0]] == [prefix.tokens for prefix in both[1]]


def test_nothing_stands_behind_a_released_prefix_or_one_of_an_earlier_policy(engine):
    first, second = engine.open(PROMPTS[:2])
    engine.release([first])
    with pytest.raises(ValueError, match="released"):
        engine.open([[1]], [first])
    engine.sync_weights(1)
    with pytest.raises(ValueError, match="policy version 0"):
        engine.open([[1]], [second])
