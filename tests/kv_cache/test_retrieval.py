"""Retrieval: with all pages read it is full attention, with fewer it is full attention over those; nothing is lost wherever pages lie."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_attach import full_cache_that_sees, generated, tokens
from transformers import DynamicCache

from etude.errors import UserError
from etude.kv_cache import offload
from etude.kv_cache.attach import attach
from etude.kv_cache.page_summaries import INDEXES, SUMMARIES, halves, summarised
from etude.kv_cache.paged_layer import PagedCacheLayer
from etude.kv_cache.retrieval import PagedRetrieval

SMALL = PagedRetrieval(page_tokens=4)
CUT = [*(PagedRetrieval(digest, budget_tokens=16, page_tokens=4) for digest in SUMMARIES), PagedRetrieval("sketch", budget_tokens=24)]
"""Of every digest one that leaves out most of what a few tokens need."""


@pytest.mark.parametrize("offload", ["none", "file"])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3-moe", "gemma3", "gpt2"])
def test_with_all_pages_it_is_the_models_own_attention(model_of, family, offload):
    model, (ids, mask) = model_of(family), tokens(40, 23, 2)
    expected, own = generated(model, ids, mask)
    for recall in (
        SMALL,
        replace(SMALL, keep_ratio=1.0),
        replace(SMALL, budget_tokens=1000),
        replace(SMALL, budget_tokens=8, full_attention_layers=2),
    ):
        with attach(model, replace(recall, offload=offload)):
            found, logits = generated(model, ids, mask)
        torch.testing.assert_close(logits, own, atol=1e-4, rtol=1e-5)
        assert torch.equal(found.sequences, expected.sequences)


@pytest.mark.parametrize("offload", ["none", "file"])
@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_every_token_reads_what_is_chosen_and_the_open_page(llama, recall, offload, monkeypatch):
    ids, mask = tokens(60, 41, 3)
    new = torch.randint(4, 250, (3, 30), generator=torch.Generator().manual_seed(1))
    reference, chosen = copy.deepcopy(llama), {}
    own, page, unit = PagedCacheLayer.chosen, recall.page_tokens, recall.unit_tokens

    def seen(layer, rows, *given):
        found = own(layer, rows, *given)
        open_ = [list(range(full * page, int(total) - 1)) for full, total in zip(layer.pages.full_B, layer.seen_B, strict=True)]
        chosen[layer.number] = [
            [[unit * one + at for one in units[there] for at in range(unit)] + open_[row] for units, there in zip(*heads, strict=True)]
            for row, heads in enumerate(zip(*found, strict=True))
        ]
        return found

    monkeypatch.setattr(PagedCacheLayer, "chosen", seen)
    ours, full = DynamicCache(config=llama.config), DynamicCache(config=llama.config)
    with torch.no_grad(), attach(llama, replace(recall, offload=offload)):
        for number, piece in enumerate([ids, new[:, :9], *new[:, 9:].split(1, 1)]):
            mask = torch.cat([mask, torch.ones_like(piece)], 1) if number else mask
            everything = [[[list(range(int(count)))] * 2 for count in mask[:, : -piece.shape[1]].sum(1)]] * 2
            found = llama(piece, attention_mask=mask, past_key_values=ours).logits
            kept = [chosen[layer] for layer in range(2)] if piece.shape[1] == 1 else everything
            with full_cache_that_sees(reference, kept, pads=[0, 19, 57]):
                expected = reference(piece, attention_mask=mask, past_key_values=full).logits
            is_real = mask[:, -piece.shape[1] :].bool()
            torch.testing.assert_close(found[is_real], expected[is_real], atol=1e-5, rtol=1e-5)
            if piece.shape[1] == 1:
                assert all(len(places) <= recall.budget_tokens for layer in kept for row in layer for places in row)
                assert all(places[:unit] == list(range(unit)) for layer in kept for row in layer[:2] for places in row)
    whole = torch.cat([ids, new], 1)
    assert (found - reference(whole, attention_mask=mask).logits[:, -1:]).abs().max() > 0.01, "nothing was left out, so nothing was shown"


@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_a_later_prompt_may_read_as_if_it_were_generated(llama, recall):
    llama = llama.double()  # in float32 products of 12 tokens and of one differ by more than is allowed here
    ids, mask = tokens(50, 31)
    question, new_mask = tokens(12, 12, seed=3)[0], torch.cat([mask, torch.ones(2, 12, dtype=torch.long)], 1)
    with torch.no_grad(), attach(llama, replace(recall, full_prompts=False)):
        cache = llama(ids, attention_mask=mask).past_key_values
        other = copy.deepcopy(cache)
        at_once = llama(question, attention_mask=new_mask, past_key_values=cache).logits
        one_by_one = [
            llama(question[:, at : at + 1], attention_mask=new_mask[:, : 51 + at], past_key_values=other).logits for at in range(12)
        ]
        torch.testing.assert_close(at_once, torch.cat(one_by_one, 1), atol=1e-5, rtol=1e-5)
    with torch.no_grad(), attach(llama, recall):
        full = llama(question, attention_mask=new_mask, past_key_values=llama(ids, attention_mask=mask).past_key_values).logits
    assert (full - at_once).abs().max() > 0.01


@pytest.mark.parametrize(
    "recall", [PagedRetrieval(keep_ratio=0.4, page_tokens=4), PagedRetrieval("sketch", keep_ratio=0.6)], ids=["cuboid", "sketch"]
)
def test_rows_of_a_batch_are_what_they_are_alone_under_recall(model_of, recall):
    model = model_of("llama", head_dim=32)  # of narrower heads several keys have one sketch
    ids, mask = tokens(50, 31, 9)
    with attach(model, recall):
        _, logits = generated(model, ids, mask, n=20)
        for row, length in enumerate((50, 31, 9)):
            _, own = generated(model, ids[row : row + 1, -length:], mask[row : row + 1, -length:], n=20)
            torch.testing.assert_close(logits[row : row + 1], own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_where_pages_lie_does_not_matter(llama, recall):
    ids, mask = tokens(50, 31)
    rest = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 12, "pad_token_id": 0, "num_beams": 3, "do_sample": False}
    found = []
    for where in ("none", "file"):
        with attach(llama, replace(recall, offload=where)):
            found.append((llama.generate(**rest), generated(llama, ids, mask, n=30)[1]))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("offload", ["none", "file"])
@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_tokens_can_be_taken_back_over_pages_and_copies_part(llama, recall, offload):
    ids, _ = tokens(43)
    with torch.no_grad(), attach(llama, replace(recall, offload=offload)):
        cache = llama(ids).past_key_values
        other = copy.deepcopy(cache)
        first = [llama(ids[:, place : place + 1], past_key_values=cache).logits for place in range(40)]  # more than twice as many pages
        assert other.get_seq_length() == 43
        for again in (cache, other):
            if again is cache:
                again.crop(-40)
            found = [llama(ids[:, place : place + 1], past_key_values=again).logits for place in range(40)]
            torch.testing.assert_close(found, first, atol=1e-6, rtol=1e-6)


def test_a_prompt_in_chunks_and_a_full_cache_from_outside_are_the_same(llama):
    ids, mask = tokens(60, 37)
    with torch.no_grad():
        outside = llama(ids, attention_mask=mask).past_key_values
        with attach(llama, PagedRetrieval(budget_tokens=16, page_tokens=4)):
            inside = llama(ids, attention_mask=mask).past_key_values
            in_chunks = DynamicCache(config=llama.config)
            for end in (7, 30, 60):
                llama(ids[:, in_chunks.get_seq_length() : end], attention_mask=mask[:, :end], past_key_values=in_chunks)
            longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
            expected, *found = (
                llama(torch.full((2, 1), 9), attention_mask=longer, past_key_values=cache).logits for cache in (inside, outside, in_chunks)
            )
    torch.testing.assert_close(found, [expected, expected], atol=1e-5, rtol=1e-5)


def test_offloaded_pages_leave_the_memory_that_they_say(model_of):
    model = model_of("llama", max_position_embeddings=4096)
    ids, mask = tokens(3000)
    held = {}
    for name, recall in (("full", SMALL), ("file", replace(SMALL, offload="file", budget_tokens=80))):
        with attach(model, recall) as attached:
            found, _ = generated(model, ids, mask, n=12)
            held[name] = attached.bytes
            layers = [layer for layer in found.past_key_values.layers if isinstance(layer, PagedCacheLayer)]
    page = 2 * 4 * 8 * 4
    assert layers[0].pages.storage.bytes == 2 * 19 * page  # two heads, 19 full pages beside the open one
    assert held["file"] < held["full"] * 0.6  # digests of pages of 4 are as large as half the keys
    assert 0 < layers[0].hits < layers[0].units_read and layers[0].moved_bytes == (layers[0].units_read - layers[0].hits) * page


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_what_is_streamed_is_read_alike_is_gone_behind_its_layer_and_is_all_brought_anew(llama, recall, together):
    ids, mask = tokens(60, 41)
    recall, held, rows = replace(recall, offload="file", full_prompts=not together), {}, {}
    for is_streamed in (False, True):
        with attach(llama, replace(recall, stream_per_layer=is_streamed)) as attached:
            output, logits = generated(llama, ids, mask, n=20)
            more = torch.tensor([[5, 6, 7]] * 2)
            with torch.no_grad():
                later = llama(more, attention_mask=torch.ones(2, 82), past_key_values=output.past_key_values).logits  # read one by one
            layers = [layer for layer in output.past_key_values.layers if isinstance(layer, PagedCacheLayer)]
            held[is_streamed] = attached.bytes, [layer.pages.storage.bytes for layer in layers]
            rows[is_streamed] = [copy.copy(layer) for layer in layers], [logits, later]
            output.past_key_values.reset()
            assert attached.bytes == 0, "a cache that begins anew holds nothing"
    for own, others in zip(*(found for _, found in rows.values()), strict=True):
        assert torch.equal(own, others), "what is read stays the same"
    (staying, _), (streamed, _) = rows.values()
    unit = 2 * recall.unit_tokens * 8 * 4
    assert held[True][1] == [0] * len(streamed) and not any(len(layer.pages.storage._holds) for layer in streamed)
    most = max(layer.streamed_bytes for layer in streamed)
    assert held[False][0] - held[True][0] == sum(held[False][1]) - most and 0 < most <= max(held[False][1]), "which is counted, once"
    for layer, own in zip(streamed, staying, strict=True):
        assert layer.streamed_bytes % unit == 0 and layer.hits == 0 and layer.units_read == own.units_read
        assert layer.moved_bytes == layer.units_read * unit > own.moved_bytes


# ---------------------------------------------------------------------- page summaries and offload


def test_bounds_promise_no_less_than_any_key_of_the_page_gives():
    draw = torch.Generator().manual_seed(0)
    keys, queries = torch.randn(20, 8, 16, generator=draw), torch.randn(50, 16, generator=draw)
    best = torch.einsum("qd,ptd->qpt", queries, keys).amax(-1)
    bounds, cuboid, mean = (halves(queries, own.shape[1]) @ own.T for own in (summarised(keys, how) for how in SUMMARIES))
    assert (bounds >= best - 1e-4).all()
    for page in range(20):
        for query in range(3):
            ends = queries[query] * keys[page].amin(0), queries[query] * keys[page].amax(0)
            terms = [max(pair) for pair in zip(*(end.tolist() for end in ends), strict=True)]
            assert float(bounds[query, page]) == pytest.approx(sum(terms), rel=1e-4)
    torch.testing.assert_close(mean, queries @ keys.mean(1).T, atol=1e-5, rtol=1e-5)
    middle = (keys.amin(1) + keys.amax(1)) / 2
    radius = (keys - middle[:, None]).abs().mean(1)
    torch.testing.assert_close(cuboid, queries @ middle.T + queries.abs() @ radius.T, atol=1e-4, rtol=1e-4)
    assert (cuboid <= bounds + 1e-4).all()


@pytest.mark.parametrize("unit_tokens", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pool_gives_what_was_written_and_holds_what_was_asked_for_last(tmp_path, dtype, unit_tokens):
    draw = np.random.default_rng(0)
    pages = torch.randn(300, 2, 4, 8).to(dtype)
    pool = offload.PagePool(offload.FilePages(pages[0], 4, tmp_path), pages[0], unit_tokens)
    units = [page[:, at : at + unit_tokens] for page in pages for at in range(0, 4, unit_tokens)]
    for first in range(0, 300, 50):
        pool.write(list(range(first, first + 50)), pages[first : first + 50])
    assert not list(tmp_path.iterdir()), "the file has no name"
    for _ in range(40):
        numbers = torch.from_numpy(draw.integers(0, len(units), (2, 10)))
        places = pool.bring(numbers)
        expected = torch.stack([torch.stack([units[number] for number in row]) for row in numbers.tolist()])
        assert torch.equal(offload.gather_units(pool.pages_P2TD, places, unit_tokens), expected.movedim(-3, 0))
    assert len(pool.pages_P2TD) <= 20
    before, moved = pool.misses, pool.moved_bytes
    pool.bring(numbers)
    assert pool.misses == before and pool.moved_bytes == moved
    assert pool.moved_bytes == pool.misses * units[0].numel() * dtype.itemsize


@pytest.mark.parametrize("recall", CUT, ids=INDEXES)
def test_what_promises_most_beside_what_is_read_is_asked_for_ahead(model_of, recall, monkeypatch):
    llama = model_of("llama", head_dim=32)  # of narrower heads several keys have one sketch
    ids, mask = tokens(60, 41)
    recall, expected, chosen = replace(recall, offload="file"), [], []
    own, there = PagedCacheLayer.chosen, set()

    def seen(layer, rows, queries):
        found = own(layer, rows, queries)
        if layer.number == 0:
            numbers = layer.pages.numbers_of(rows, found[0])
            chosen.append([[set(numbers[row, head].tolist()) for head in range(2)] for row in range(2)])
            pages = [number for row in rows for number in layer.pages.numbers_BHP[row, :, : layer.pages.full_B[row]].ravel().tolist()]
            there.update(page * layer.pages.units + at for page in pages for at in range(layer.pages.units))
        return found

    monkeypatch.setattr("etude.kv_cache.paged_kernels.kernels_for", lambda *_: None)  # which can't ask ahead: both by the same operations
    monkeypatch.setattr(PagedCacheLayer, "chosen", seen)
    monkeypatch.setattr(offload.FilePages, "expect", lambda self, numbers, unit_tokens: expected.append(set(numbers.tolist())))
    with attach(llama, recall):
        _, without = generated(llama, ids, mask, n=20)
    assert not expected
    chosen.clear()
    with attach(llama, replace(recall, prefetch_pages=2)):
        output, logits = generated(llama, ids, mask, n=20)
    assert torch.equal(logits, without), "what is read stays the same"
    layer = output.past_key_values.layers[0]
    assert 0 < layer.pages.storage.expected_misses <= layer.pages.storage.misses
    for told, read in zip(expected[::2], chosen, strict=True):  # of the first of two layers
        assert told and not told & set.union(*(pages for row in read for pages in row)), "they are read anyway"
        assert len(told) <= 2 * 2 * 2 and told <= there


def test_a_file_is_asked_to_be_read_ahead_by_whole_pages_of_the_system(tmp_path, monkeypatch):
    pages = torch.randn(70, 2, 4, 8)
    file = offload.FilePages(pages[0], 4, tmp_path)
    file.write(list(range(70)), pages)
    file.expect(np.array([0, 17, 69]), 4)  # 256 bytes each
    assert torch.equal(file.read(torch.arange(70)), pages)
    told = []

    class Map:
        def __len__(self):
            return file._room * 256

        def madvise(self, how, start, length):
            told.append((how, start, length))

    monkeypatch.setattr(file, "_map", Map())
    file.expect(np.array([34, 35]), 2)  # of one page
    ((how, start, length),) = told
    assert how == offload.mmap.MADV_WILLNEED and start == 17 * 256 // offload.mmap.PAGESIZE * offload.mmap.PAGESIZE
    assert start + length == 18 * 256


def test_a_disk_that_is_full_is_said_in_a_sentence_and_the_model_goes_on(llama, monkeypatch):
    ids, mask = tokens(40)
    expected = llama(ids).logits

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(offload.os, "posix_fallocate", full)
    recall, said = (
        PagedRetrieval(budget_tokens=16, page_tokens=4, offload="file"),
        r"no room to offload .* MiB to .*No space left.*offload 'none'",
    )
    with pytest.raises(UserError, match=said), attach(llama, recall):
        generated(llama, ids, mask)
    assert torch.equal(llama(ids).logits, expected)


def test_settings_of_recall_that_can_not_be_are_said_in_a_sentence(llama, tmp_path):
    for changes, message in (
        ({"digest": "bound"}, "unknown digest 'bound': did you mean 'bounds'"),
        ({"budget_tokens": 20}, "set budget_tokens to 32 or more, or page_tokens to 10 or less"),
        ({"digest": "sketch", "page_tokens": 4}, "page_tokens is 4, but sketches lie together for 16 tokens.*leave page_tokens out"),
        ({"digest": "sketch", "budget_tokens": 16}, "at least 1 beside: set budget_tokens to 17 or more$"),
        ({"keep_ratio": 0.1, "budget_tokens": 64}, "leave one of them out"),
        ({"offload": "disk"}, "unknown offload 'disk'"),
        ({"folder": str(tmp_path)}, "set offload to 'file'"),
        ({"folder": str(tmp_path / "no"), "offload": "file"}, "does not exist"),
        ({"page_tokens": 0}, "page_tokens must be at least 1"),
        ({"stream_per_layer": True}, "stream_per_layer is set but offload is 'none', so it has no effect: set offload to 'file'"),
        ({"prefetch_pages": 2, "offload": "file", "stream_per_layer": True}, "with stream_per_layer nothing does: leave one of them out"),
        ({"prefetch_pages": -1}, "prefetch_pages must be at least 0"),
        ({"prefetch_pages": 2}, "set offload to 'file'"),
    ):
        with pytest.raises(UserError, match=message):
            PagedRetrieval(**changes)
    with attach(llama, PagedRetrieval(offload="memory")), pytest.raises(UserError, match="set offload to 'file' or 'none'"):
        llama(tokens(40)[0])
