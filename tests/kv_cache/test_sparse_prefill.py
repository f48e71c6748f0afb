"""SparsePrefill attention is dense at threshold 1, and what it chooses is what its formula says."""

import math
from dataclasses import replace

import pytest
import torch
from test_attach import generated, tokens

from etude.errors import UserError
from etude.evaluation.long.sparse_error import SparseError, sparse_error
from etude.kernels.sparse import block_sparse_for
from etude.kv_cache import attention, sparse_prefill
from etude.kv_cache.attach import attach
from etude.kv_cache.policies import EVICTION
from etude.kv_cache.retrieval import PagedRetrieval
from etude.kv_cache.sparse_prefill import PATTERNS, Density, SparsePrefill

SMALL = SparsePrefill(block_tokens=8, stride=4, from_tokens=2)


def states(length: int, before: int = 0, heads: int = 2, width: int = 6):
    draw = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, before + length, width, generator=draw)
    return torch.randn(heads, length, width, generator=draw) * 2, keys, values


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("length", "before"), [(64, 0), (61, 0), (5, 0), (17, 13), (8, 24), (3, 40), (100, 0), (90, 21)])
def test_threshold_1_is_dense_attention(pattern, length, before):
    queries, keys, values = states(length, before)
    how = replace(SMALL, pattern=pattern, threshold=1.0, density=Density())
    found = how.causal(queries, keys, values, 0.4)
    torch.testing.assert_close(found, attention.causal(queries, keys, values, 0.4), atol=1e-6, rtol=1e-5)
    assert how.density.share == 1.0


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("length", "before"), [(64, 0), (61, 0), (21, 13), (90, 21)])
def test_what_is_read_is_the_chosen_blocks_and_nothing_else(pattern, length, before):
    queries, keys, values = states(length, before)
    how = replace(SMALL, pattern=pattern, threshold=0.5, density=Density())
    chosen = how.chosen(queries, keys, 0.4)
    found = how.causal(queries, keys, values, 0.4)
    for head in range(2):
        for query in range(length):
            place = before + query
            row = chosen[head, place // 8 - before // 8]
            allowed = [at for at in range(place + 1) if row[at // 8]]
            weights = torch.softmax(keys[allowed] @ queries[head, query] * 0.4, 0)
            torch.testing.assert_close(found[head, query], weights @ values[allowed], atol=1e-5, rtol=1e-5)
    own = torch.arange(before // 8, -(-(before + length) // 8))
    assert chosen[:, :, 0].all() and chosen[:, torch.arange(len(own)), own].all()
    assert 0 < how.density.share < 1


@pytest.mark.parametrize("threshold", [1.0, 0.5])
@pytest.mark.parametrize("width", [16, 48, 80])
@pytest.mark.parametrize("block", [16, 48, 80])
@pytest.mark.parametrize(("length", "before"), [(240, 0), (201, 0), (5, 0), (170, 130), (3, 240), (90, 21)])
def test_a_kernel_reads_the_same_blocks(threshold, width, block, length, before):
    scale = 0.5 * width**-0.5
    queries, keys, values = states(length, before, heads=3, width=width)
    if not block_sparse_for(keys, block):
        pytest.skip("there is no C++ compiler")
    how = SparsePrefill(block_tokens=block, stride=4, threshold=threshold)
    apart = queries.transpose(0, 1).contiguous().transpose(0, 1)  # heads side by side, as projections give them
    found, chosen = how.causal(apart, keys, values, scale), how.chosen(queries, keys, scale)
    torch.testing.assert_close(found, how._gathered(queries, keys, values, chosen, scale), atol=5e-6, rtol=1e-5)
    if threshold == 1:
        torch.testing.assert_close(found, attention.causal(queries, keys, values, scale), atol=5e-6, rtol=1e-5)


def test_a_kernel_outlives_scores_that_are_far_apart():
    queries, keys, values = states(200, heads=2, width=16)
    queries, keys = queries * 30, keys * 30  # the highest score rises by hundreds from block to block
    how = SparsePrefill(block_tokens=16, stride=4, threshold=0.9)
    found = how.causal(queries, keys, values, 1.0)
    torch.testing.assert_close(found, how._gathered(queries, keys, values, how.chosen(queries, keys, 1.0), 1.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [2, 8])
def test_antidiagonals_promise_what_their_formula_says(rows, monkeypatch):
    monkeypatch.setattr(sparse_prefill, "_ROWS", rows)  # blocks of queries at a time
    queries, keys, _ = states(48)
    stride, scale = 4, 6**-0.5
    how = replace(SMALL, threshold=0.6, density=Density())
    chosen = how.chosen(queries, keys, scale)
    for head in range(2):
        coarse = torch.full((12, 12), -math.inf)
        for i in range(12):
            for j in range(i + 1):
                terms = [queries[head, i * stride + stride - 1 - s] @ keys[j * stride + s] for s in range(stride)]
                coarse[i, j] = sum(terms) * scale / stride
        read = coarse.softmax(-1)
        for block in range(6):
            promises = [float(read[2 * block : 2 * block + 2, 2 * other : 2 * other + 2].sum()) for other in range(block + 1)]
            wanted, total = set(), 0.0
            for other in sorted(range(block + 1), key=lambda each: -promises[each]):
                if total < 0.6 * sum(promises):
                    wanted.add(other)
                total += promises[other]
            assert set(chosen[head, block].nonzero()[:, 0].tolist()) == wanted | {0, block}


def test_half_precision_is_rounded_at_the_end_alone():
    queries, keys, values = (each.bfloat16() for each in states(64))
    how = replace(SMALL, threshold=1.0, density=Density())
    queries *= 5  # scores of tens
    exact = attention.causal(queries.double(), keys.double(), values.double(), 0.4)
    found = how.causal(queries, keys, values, 0.4)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, atol=1e-3, rtol=4e-3)


def test_vertical_slash_finds_a_column_that_all_read_and_the_diagonal():
    length, draw = 64, torch.Generator().manual_seed(0)
    keys, queries = torch.randn(length, 6, generator=draw) * 0.1, torch.randn(1, length, 6, generator=draw) * 0.1
    keys[20], queries[:, :, 0] = torch.tensor([9.0, 0, 0, 0, 0, 0]), 3.0  # every query reads token 20
    chosen = replace(SMALL, pattern="vertical_slash", threshold=0.3, density=Density()).chosen(queries, keys, 1.0)
    assert chosen[0, 3:, 20 // 8].all() and chosen[0].sum() < 0.6 * 36


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_model_reads_its_prompt_sparsely_and_is_itself_at_threshold_1(llama, pattern):
    ids, mask = tokens(90, 57)
    _, own = generated(llama, ids, mask, n=6)
    for policy in (replace(EVICTION["snapkv"], keep_ratio=1.0), PagedRetrieval()):
        dense, sparse = (replace(SMALL, pattern=pattern, threshold=threshold, density=Density()) for threshold in (1.0, 0.4))
        with attach(llama, replace(policy, sparse=dense)):
            torch.testing.assert_close(generated(llama, ids, mask, n=6)[1], own, atol=1e-4, rtol=1e-4)
        with attach(llama, replace(policy, sparse=sparse)):
            _, together = generated(llama, ids, mask, n=6)
            _, alone = generated(llama, ids[1:, -57:], mask[1:, -57:], n=6)
        torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)
        assert (together - own).abs().max() > 0.01 and sparse.density.share < 0.9
        with attach(llama, replace(policy, sparse=replace(sparse, from_tokens=200))):
            torch.testing.assert_close(generated(llama, ids, mask, n=6)[1], own, atol=1e-4, rtol=1e-4)


def test_what_is_read_is_compared_with_dense_attention():
    queries, keys, values = states(21, 13)
    dense = sparse_error(replace(SMALL, threshold=1.0, density=Density()), queries, keys, values, 0.4)
    assert (dense.density, dense.recall) == (1.0, 1.0) and dense.mass == pytest.approx(1.0) and dense.error < 1e-5
    how = replace(SMALL, threshold=0.5, density=Density())
    found, chosen = sparse_error(how, queries, keys, values, 0.4), how.chosen(queries, keys, 0.4)
    weights = torch.stack(
        [
            torch.nn.functional.pad((queries[:, place] @ keys[: 14 + place].T * 0.4).softmax(-1), (0, 40 - 14 - place))
            for place in range(21)
        ],
        1,
    ).unflatten(2, (5, 8))
    mass = sum(float(weights[head, place, chosen[head, (13 + place) // 8 - 1]].sum()) for head in range(2) for place in range(21)) / 42
    assert found.mass == pytest.approx(mass, abs=1e-5) and 0.3 < mass < 0.98
    assert found.density == pytest.approx(int(chosen.sum()) / (2 * (2 + 3 + 4 + 5))) and found.density < 1
    by_block = [weights[:, max(8 * row - 13, 0) : 8 * row - 5].sum((1, 3)) for row in range(1, 5)]
    recalls = []
    for head in range(2):
        for row in range(4):
            best = by_block[row][head].topk(int(chosen[head, row].sum())).indices
            recalls.append(float(chosen[head, row, best].double().mean()))
    assert found.recall == pytest.approx(sum(recalls) / len(recalls)) and found.recall < 1
    lost = how.causal(queries, keys, values, 0.4) - attention.causal(queries, keys, values, 0.4)
    assert found.error == pytest.approx(float(lost.norm() / attention.causal(queries, keys, values, 0.4).norm()), rel=1e-5)
    both = SparseError.mean([found, dense])
    assert both.density == pytest.approx((found.density + 1) / 2) and both.error == pytest.approx((found.error + dense.error) / 2)


def test_settings_of_sparse_attention_that_can_not_be_are_said_in_a_sentence():
    for changes, message in (
        ({"pattern": "diagonal"}, "unknown pattern 'diagonal'"),
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"block_tokens": 100, "stride": 8}, "no multiple of stride 8"),
    ):
        with pytest.raises(UserError, match=message):
            SparsePrefill(**changes)
