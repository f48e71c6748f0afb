"""A prompt that is read once and cut by many policies is what each of them would have kept."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from etude.evaluation.long.multi_policy import Reading
from etude.kv_cache.attach import attach
from etude.kv_cache.policies import EVICTION, RETRIEVAL
from etude.kv_cache.retrieval import PagedRetrieval

POLICIES = [
    replace(policy, **budget, every_tokens=0) for policy in EVICTION.values() for budget in ({"keep_ratio": 0.3}, {"budget_tokens": 9})
]


def kept_positions(cache) -> list[list[list[list[int]]]]:
    """Return the positions of the tokens that are kept, by layer, row and head."""
    every = [layer.slots for layer in cache.layers]
    return [[[part.position_T.tolist() for part in slots.row(row)] for row in range(slots.rows)] for slots in every]


def prompt_of(length: int) -> list[int]:
    return torch.randint(4, 250, (length,), generator=torch.Generator().manual_seed(0)).tolist()


def answered(model, policy, pieces, n):
    """Greedy tokens under a policy, with transformers' own means."""
    with torch.no_grad(), attach(model, policy):
        output, cache = None, None
        for piece in pieces:
            output = model(torch.tensor([piece]), past_key_values=cache)
            cache = output.past_key_values
        kept, found = kept_positions(cache), []
        for _ in range(n):
            found.append(int(output.logits[0, -1].argmax()))
            output = model(torch.tensor([[found[-1]]]), past_key_values=cache)
    return kept, found


def test_every_policy_keeps_and_answers_what_it_does_alone(llama):
    prompt = prompt_of(70)
    reading = Reading(llama, POLICIES)
    reading.read(prompt)
    rows = reading.rows(POLICIES)
    kept = kept_positions(rows.cache)
    shares = rows.shares(1, 70)
    assert [[np.flatnonzero(head).tolist() for head in layer] for layer in shares] == [list(layer[1]) for layer in kept]
    found = rows.greedy(reading.logits_V.expand(len(POLICIES), -1), 8, ends=[])
    for row, policy in enumerate(POLICIES):
        own, tokens = answered(llama, policy, [prompt], 8)
        assert [[heads[row]] for heads in kept] == own, policy
        assert found[row] == tokens, policy
    assert len({tuple(tokens) for tokens in found}) > 2


def test_a_question_behind_the_cut_is_kept_and_answers_end_where_they_end(llama):
    prompt, question = prompt_of(70), prompt_of(9)
    reading = Reading(llama, POLICIES)
    reading.read(prompt[:30])
    reading.read(prompt[30:])
    policies = POLICIES[:6]
    rows = reading.rows(policies)
    before = kept_positions(rows.cache)
    logits = rows.forced(question)
    assert logits.shape == (6, 9, 260)
    for layer, own in zip(kept_positions(rows.cache), before, strict=True):
        for row in range(6):
            for head in range(2):
                assert layer[row][head] == own[row][head] + list(range(70, 79))
    full = Reading(llama)
    full.read([*prompt, *question])
    everything = reading.rows([replace(POLICIES[0], keep_ratio=1.0)])
    torch.testing.assert_close(everything.forced(question)[0, -1], full.logits_V, atol=1e-5, rtol=1e-5)
    first = int(logits[0, -1].argmax())
    assert rows.greedy(logits[:, -1], 5, ends=[first])[0] == []


@pytest.mark.parametrize("name", RETRIEVAL)
def test_pages_of_a_reading_are_recalled_as_they_are_alone(llama, name):
    prompt = prompt_of(70)
    small = {"budget_tokens": 24} if name == "sketch" else {"page_tokens": 4, "budget_tokens": 16}
    recall = replace(RETRIEVAL[name], **small, offload="file")
    reading = Reading(llama)
    reading.read(prompt)
    rows = reading.rows([replace(recall, keep_ratio=0.7, budget_tokens=None), recall])
    found = rows.greedy(rows.first(reading), 8, ends=[])[1:]
    assert rows.held_tokens[0] > rows.held_tokens[1]
    full_B = rows.cache.layers[0].pages.full_B
    known = full_B / 4 + 8 / 4 + 1 / 4 if name == "sketch" else full_B  # in float32, of a head of 8: words, directions and the mean
    assert rows.cache.layers[0].pages.summary_tokens_B.tolist() == known.tolist()
    passing = reading.rows([replace(recall, stream_per_layer=True)])
    assert passing.greedy(passing.first(reading), 8, ends=[]) == found
    near = recall.units(int(rows.cache.layers[0].seen_B[1]), 0) * recall.unit_tokens
    assert passing.held_tokens == [rows.held_tokens[1] - near / 2], "in one of two layers"
    shares = rows.shares(1, 70)
    assert shares.shape == (2, 2, 70) and 0 < shares[:, :, 4:60].mean() < 0.5
    assert (shares[:, :, :4] == 1).all() or (name == "sketch" and (shares[:, :, :16] >= 1 / 16).all())
    times = 7 * (8 + 16) if name == "sketch" else 7 * (3 + 1)
    assert all((layer.pages.times_BHP[1].sum(-1) == times).all() for layer in rows.cache.layers), "full pages or tokens, and the open page"
    assert rows.hit_rate and 0 < rows.hit_rate < 1 and rows.moved_bytes > 0 and rows.expected_rate == 0
    with torch.no_grad(), attach(llama, recall):
        output = llama(torch.tensor([prompt]))
        for token in found[0]:
            assert int(output.logits[0, -1].argmax()) == token
            output = llama(torch.tensor([[token]]), past_key_values=output.past_key_values)


@pytest.mark.parametrize("family", ["lfm2", "gemma3"])
def test_what_no_policy_cuts_is_there_for_every_row(model_of, family):
    """Behind a hybrid's windows and states a row answers as it does alone."""
    model, prompt, question = model_of(family), prompt_of(70), prompt_of(9)[::-1]
    policies = [replace(EVICTION[name], keep_ratio=ratio) for name, ratio in (("streaming", 1.0), ("kvzip", 0.3), ("key_norm", 0.3))]
    recall = PagedRetrieval("bounds", page_tokens=4, budget_tokens=16)
    reading = Reading(model, policies)
    reading.read(prompt)
    found = [*reading.rows(policies).forced(question), *reading.rows([recall, recall]).forced(question)]
    for policy, logits_TV in zip([*policies, recall, recall], found, strict=True):
        with torch.no_grad(), attach(model, policy):
            cache = model(torch.tensor([prompt])).past_key_values
            own_TV = model(torch.tensor([question]), past_key_values=cache).logits[0]
        torch.testing.assert_close(logits_TV, own_TV, atol=1e-5, rtol=1e-5)
    whole = model(torch.tensor([[*prompt, *question]])).logits[0, -9:]
    torch.testing.assert_close(found[0], whole, atol=1e-5, rtol=1e-5)


def test_a_fork_goes_its_own_way(llama):
    reading = Reading(llama)
    reading.read(prompt_of(40))
    other = reading.fork()
    other.read(prompt_of(9))
    assert (len(reading.tokens), len(other.tokens)) == (40, 49)
    again = reading.fork()
    again.read(prompt_of(9))
    assert torch.equal(again.logits_V, other.logits_V)


def test_a_reading_says_how_important_each_token_is_and_what_later_ones_read_of_it(llama):
    prompt, question = prompt_of(40), prompt_of(9)
    policies = [replace(EVICTION[name], keep_ratio=0.3) for name in ("h2o", "kvzip", "snapkv")]
    reading = Reading(llama, policies)
    reading.read(prompt)
    later = reading.read_by(question)
    reference = copy.deepcopy(llama)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        read = reference(torch.tensor([prompt + question]), output_attentions=True).attentions
    for layer, (mine, weights) in enumerate(zip(later, read, strict=True)):
        expected = weights[0, :, len(prompt) :, : len(prompt)].sum(1).unflatten(0, (2, -1)).mean(1)
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
        summed = policies[0].score(reading.held(policies[0])[layer])
        own = weights[0, :, : len(prompt), : len(prompt)].sum(1).unflatten(0, (2, -1)).mean(1)
        torch.testing.assert_close(summed, own, atol=1e-5, rtol=1e-5)
    (replayed, *_), (window, *_) = (reading.held(policy) for policy in policies[1:])
    assert replayed.mass_HT.max() <= 1 < reading.held(policies[0])[0].mass_HT.max()
    assert policies[2].score(window).shape == (2, 40)
