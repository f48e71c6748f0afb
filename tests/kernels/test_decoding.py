"""The kernels of decoding against torch's plain operations."""

import platform
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from etude.engine.sampling import GREEDY, Sampling, sample
from etude.kernels import compiled as compiling
from etude.kernels import decoding
from etude.kernels.decoding import kernels_for
from etude.kernels.tables import BLOCK, GeneratedKV, KVStore, SlotTable

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: {"atol": 2e-6, "rtol": 2e-5}, torch.bfloat16: {"atol": 0.02, "rtol": 0.02}}

compiled = pytest.mark.skipif(not kernels_for(CPU, torch.float32), reason="there is no C++ compiler")
each_precision = pytest.mark.parametrize("dtype", TOLERANCE)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found, expected):
    torch.testing.assert_close(found.float(), expected.float(), **TOLERANCE[found.dtype])


def plain(query_HD, keys_TKD, values_TKD, scale):
    """One query over its keys, in float64."""
    share = len(query_HD) // keys_TKD.shape[1]
    keys, values = (states.double().repeat_interleave(share, dim=1) for states in (keys_TKD, values_TKD))
    weights = (scale * torch.einsum("hd,thd->ht", query_HD.double(), keys)).softmax(-1)
    return torch.einsum("ht,thd->hd", weights, values)


def stored(kernel, keys_RTKD, values_RTKD, positions):
    """Rows of keys and values as the kernels keep them."""
    rows, length, kv_heads, width = keys_RTKD.shape
    store = KVStore.of(rows, kv_heads, positions, width, keys_RTKD.dtype)
    row_N = torch.arange(rows).repeat_interleave(length)
    kernel.put(store, row_N, torch.arange(length).repeat(rows), keys_RTKD.flatten(0, 1), values_RTKD.flatten(0, 1))
    return store


@compiled
@each_precision
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(9, 3, 64), (4, 4, 16), (6, 1, 80), (14, 2, 96), (40, 1, 128)])
@pytest.mark.parametrize(("prompt_tokens", "drawn"), [(1, 0), (33, 31), (70, 40)])
def test_rows_attend_to_their_prompt_and_to_what_they_have_drawn(dtype, heads, kv_heads, width, prompt_tokens, drawn):
    kernel, scale = kernels_for(CPU, dtype), 1.7 * width**-0.5
    prompt_B, slot_B = [0, 0, 0, 2, 2], torch.tensor([4, 0, 2, 6, 1])
    prompts = [random(3, prompt_tokens, kv_heads, width, seed=seed, dtype=dtype) for seed in (1, 2)]
    own = [random(7, 64, kv_heads, width, seed=seed, dtype=dtype) for seed in (3, 4)]
    queries, keys, values = (random(5, n, width, seed=n, dtype=dtype) for n in (heads, kv_heads, kv_heads))
    seen_B, drawn_B = torch.tensor([prompt_tokens] * 4 + [1]), torch.tensor([drawn, 0, drawn // 2, drawn, drawn])
    own_store = stored(kernel, own[0][:, : drawn + 1], own[1][:, : drawn + 1], 2 * BLOCK)
    found = kernel.attend(
        queries,
        prompts=stored(kernel, *prompts, 96),
        seen_N=seen_B,
        items=torch.tensor([[0, 0, 2], [0, 2, 3], [2, 3, 5]]),
        scale=scale,
        own=GeneratedKV(keys, values, own_store, slot_B, drawn_B),
    )
    for row, (prompt, slot) in enumerate(zip(prompt_B, slot_B, strict=True)):
        behind = [
            torch.cat([shared[prompt, : seen_B[row]], mine[slot, : drawn_B[row]], new[row : row + 1]])
            for shared, mine, new in zip(prompts, own, (keys, values), strict=True)
        ]
        close(found[row], plain(queries[row], *behind, scale))
    mine = own_store.keys_RKTD[slot_B[0]].clone()  # the new token is kept behind what its row had drawn
    kernel.put(own_store, slot_B[:1], drawn_B[:1], keys[:1], values[:1])
    assert torch.equal(own_store.keys_RKTD[slot_B[0]], mine)


@compiled
@each_precision
def test_positions_that_a_row_does_not_see_change_nothing(dtype):
    kernel = kernels_for(CPU, dtype)
    keys, values, queries = (
        random(1, 40, 2, 32, seed=1, dtype=dtype),
        random(1, 40, 2, 32, seed=2, dtype=dtype),
        random(40, 4, 32, dtype=dtype),
    )
    items, seen = torch.tensor([[0, start, start + 8] for start in range(0, 40, 8)]), torch.arange(1, 41)
    found = kernel.attend(queries, prompts=stored(kernel, keys, values, 64), seen_N=seen, items=items, scale=0.2)
    for position in range(40):  # causal attention, that is
        close(found[position], plain(queries[position], keys[0, : position + 1], values[0, : position + 1], 0.2))
    high = stored(
        kernel, torch.cat([keys[:, :20], 1e4 * keys[:, 20:]], dim=1), torch.cat([values[:, :20], 1e30 * values[:, 20:]], dim=1), 64
    )
    assert torch.equal(kernel.attend(queries, prompts=high, seen_N=seen, items=items, scale=0.2)[:16], found[:16])


@compiled
def test_keys_and_values_that_lie_in_different_ways_are_kept_while_they_are_read():
    keys, values = random(2, 3, 16).transpose(0, 1), random(3, 2, 16, seed=1)
    own = GeneratedKV(keys, values, KVStore.of(3, 2, 32, 16, torch.float32), torch.arange(3), torch.zeros(3, dtype=torch.long))
    assert own.keys_NKD.stride() == own.values_NKD.stride() and torch.equal(own.keys_NKD, keys)
    assert own.arguments()[:2] == (own.keys_NKD.data_ptr(), own.values_NKD.data_ptr())


@compiled
def test_attention_over_what_is_no_number_is_no_number():
    kernel = kernels_for(CPU, torch.float32)
    keys = random(1, 5, 1, 16)
    keys[0, 3] = torch.nan
    found = kernel.attend(
        random(2, 1, 16), prompts=stored(kernel, keys, keys, 32), seen_N=torch.tensor([5, 3]), items=torch.tensor([[0, 0, 2]]), scale=1.0
    )
    assert found[0].isnan().all() and found[1].isnan().any() == found[1].isnan().all()


@compiled
@each_precision
@pytest.mark.parametrize("shape", [(1, 576), (70, 40), (3, 7)])
def test_a_norm_equals_torchs(dtype, shape):
    x, weight = random(*shape, dtype=dtype), random(shape[-1], seed=1, dtype=dtype)
    close(kernels_for(CPU, dtype).rms_norm(x, weight, 0.01), torch.nn.functional.rms_norm(x.double(), shape[-1:], weight.double(), 0.01))


@compiled
@each_precision
@pytest.mark.parametrize("width", [8, 64, 80])
@pytest.mark.parametrize("is_normed", [False, True])
def test_queries_and_keys_are_turned_by_their_positions_and_values_are_not(dtype, width, is_normed):
    states, angles = random(6, 4 + 2 + 2, width, dtype=dtype), random(6, width // 2, seed=1).repeat(1, 2)
    norms = (random(width, seed=2, dtype=dtype), random(width, seed=3, dtype=dtype)) if is_normed else None
    found, cos, sin = states.clone(), angles.cos().to(dtype), angles.sin().to(dtype)
    kernels_for(CPU, dtype).rotate(found, 4, 2, cos, sin, norms, 0.01)
    turned = states.double()[:, :6]
    if norms:
        parts = turned.split((4, 2), dim=1)
        turned = torch.cat(
            [torch.nn.functional.rms_norm(part, (width,), norm.double(), 0.01) for part, norm in zip(parts, norms, strict=True)], 1
        )
    first, second = turned.chunk(2, dim=-1)
    close(found[:, :6], turned * cos.double()[:, None] + torch.cat([-second, first], dim=-1) * sin.double()[:, None])
    assert torch.equal(found[:, 6:], states[:, 6:])


@compiled
@each_precision
@pytest.mark.parametrize("vocabulary", [5, 256, 1000])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.6), Sampling(top_k=3), GREEDY])
def test_draws_are_those_of_torchs_operations(dtype, vocabulary, sampling, monkeypatch):
    logits, uniforms, rows = 3 * random(4, vocabulary, dtype=dtype), torch.rand(500, dtype=torch.float64), torch.randint(4, (500,))
    tokens, logprobs = sample(logits, sampling, uniforms, rows)
    monkeypatch.setattr(decoding, "_kernels", dict)
    expected, expected_logprobs = sample(logits, sampling, uniforms, rows)
    assert (tokens != expected).float().mean() <= 0.002  # a rounding at a border
    same = tokens == expected
    torch.testing.assert_close(logprobs[same], expected_logprobs[same], atol=2e-6, rtol=1e-5)


@compiled
@each_precision
@pytest.mark.parametrize("vocabulary", [5, 256, 1300])
def test_the_best_token_of_a_row_is_the_first_of_the_highest_and_never_what_is_no_number(dtype, vocabulary):
    logits = random(6, vocabulary, dtype=dtype)
    logits[1, [vocabulary // 2, vocabulary - 1]] = logits[1].max() + 1
    logits[2] = -torch.inf
    logits[3, 2], logits[4] = 9, torch.nan
    logits[3, 3 if vocabulary < 256 else 242] = torch.nan  # where it stands in the lane of the highest, behind it
    expected = [int(logits[row].max(-1).indices) for row in (0, 1, 2)]
    assert expected[1:] == [vocabulary // 2, 0]
    found = kernels_for(CPU, dtype).best(logits).tolist()
    assert found[:3] == expected and found[3] == 2 and 0 <= found[4] < vocabulary
    assert found[5] == logits[5].argmax()


@compiled
@each_precision
@pytest.mark.parametrize("vocabulary", [5, 256, 1300])
def test_sums_of_groups_of_rows_are_those_of_torchs_operations(dtype, vocabulary):
    logits, groups, weights = random(6, vocabulary, dtype=dtype), torch.tensor([2, 0, 2, 1, 0, 2]), random(6, seed=1).double()
    logits[1, 3] = -torch.inf
    expected = torch.zeros(3, vocabulary, dtype=torch.float64).index_add_(0, groups, logits.double() * weights[:, None])
    found = kernels_for(CPU, dtype).weighted_sums(logits, groups, weights.float(), 3)
    assert found[0, 3] == -torch.inf and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(kernels_for(CPU, dtype).weighted_sums(logits, torch.arange(6), torch.ones(6), 6), logits.float())  # to the bit


@compiled
@pytest.mark.parametrize("rows", [1, 2, 6, 7, 13, 96, 97, 200])
@pytest.mark.parametrize(("width", "outputs"), [(5, 16), (48, 32), (576, 176), (1030, 80), (2049, 64)])
@pytest.mark.parametrize("then", decoding.THEN)
def test_a_product_with_weights_in_panels_is_the_product(rows, width, outputs, then):
    kernel = kernels_for(CPU, torch.float32)
    x, weight, bias, before = (
        random(*shape, seed=seed) for seed, shape in enumerate([(rows, width), (outputs, width), (outputs,), (rows, outputs)])
    )
    weight = weight * width**-0.5
    after = {"none": lambda y: y, "add": lambda y: y + before, "mul": lambda y: y * before, "swish": torch.nn.functional.silu}[then]
    panels = kernel.in_panels(weight)
    for given in (bias, None):
        found = kernel.product(x, panels, given, then, before if then in ("add", "mul") else None)
        expected = after((x.double() @ weight.double().T + (0 if given is None else given)).float())
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        alone = [kernel.product(x[row : row + 1], panels, given, then, before[row : row + 1] if then in ("add", "mul") else None)
                 for row in range(0, rows, 40)]  # fmt: skip
        assert torch.equal(found[::40], torch.cat(alone))  # to the bit, whatever stands beside a row


@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have other vectors")
@pytest.mark.parametrize(("without", "numbers"), [("avx512f", 8), ("avx", 4)])
def test_shorter_vectors_give_the_same_products_and_the_same_attention(without, numbers, monkeypatch):
    monkeypatch.setattr(compiling, "_FLAGS", (*compiling._FLAGS, f"-mno-{without}"))
    for dtype, kernel in decoding._kernels.__wrapped__().items():
        x, weight = random(7, 64, dtype=dtype), random(96, 64, seed=1, dtype=dtype)
        laid_out = kernel.in_panels(weight) if dtype == torch.float32 else kernel.in_blocks(weight)
        torch.testing.assert_close(kernel.product(x, laid_out, None, "none", None), x @ weight.T, atol=1e-4, rtol=0.01)
        queries, keys, values = (random(1, 40, 2, 32, seed=seed, dtype=dtype) for seed in (1, 2, 3))
        behind = {"seen_N": torch.tensor([33]), "items": torch.tensor([[0, 0, 1]]), "scale": 0.2}
        found = kernel.attend(queries[0, :1], prompts=stored(kernel, keys, values, 64), **behind)
        close(found[0], plain(queries[0, 0], keys[0, :33], values[0, :33], 0.2))
        assert kernel.numbers <= numbers


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64", reason="what the processor has is not told")
@compiled
def test_vectors_are_as_long_as_the_processors_own():
    flags = Path("/proc/cpuinfo").read_text().split()
    assert kernels_for(CPU, torch.float32).numbers == (16 if "avx512f" in flags else 8 if "avx" in flags else 4)


@compiled
def test_weights_that_are_no_whole_vectors_are_left_alone():
    assert kernels_for(CPU, torch.float32).in_panels(random(24, 8)) is None
    assert kernels_for(CPU, torch.bfloat16).in_panels(random(32, 8).bfloat16()) is None


def stretches(count_BH, width, dtype, spare=5, seed=0):
    """Slots of heads that hold so many, which lie apart."""
    room_BH = count_BH + spare
    start_BH = (room_BH.flatten().cumsum(0) - room_BH.flatten()).view(room_BH.shape)
    keys, values = (random(int(room_BH.sum()), width, seed=each, dtype=dtype) for each in (seed, seed + 1))
    for end in (start_BH + count_BH).flatten():
        keys[end : end + spare], values[end : end + spare] = torch.nan, torch.nan
    places = torch.zeros(len(keys), dtype=torch.int32), torch.zeros(len(keys))
    return SlotTable(keys, values, *places, start_BH, count_BH)


@compiled
@each_precision
@pytest.mark.parametrize(
    ("counts", "share", "width"),
    [
        ([[50, 1, 17], [16, 33, 2]], 3, 64),
        ([[2047, 2048, 5000]], 3, 64),
        ([[90, 3]] * 8, 7, 32),
        ([[9], [1], [40]], 1, 128),
        ([[70, 64]], 9, 64),
        ([[129, 5]], 8, 96),
    ],
)
@pytest.mark.parametrize("scale", [0.2, 0.0, -0.1])
def test_heads_attend_to_slots_of_their_own_number(dtype, counts, share, width, scale):
    """A head of more than 2,047 slots is read by several threads where there are few heads."""
    kernel, (rows, kv_heads) = kernels_for(CPU, dtype), torch.tensor(counts).shape
    held = stretches(torch.tensor(counts), width, dtype)
    queries = random(rows, kv_heads, share, width, seed=9, dtype=dtype)
    expected, masses = torch.zeros(queries.shape, dtype=torch.double), torch.zeros(len(held.mass_S), dtype=torch.double)
    for row in range(rows):
        for head in range(kv_heads):
            own = slice(int(held.start_BH[row, head]), int(held.start_BH[row, head] + held.count_BH[row, head]))
            weights = (scale * queries[row, head].double() @ held.keys_SD[own].double().T).softmax(-1)
            expected[row, head], masses[own] = weights @ held.values_SD[own].double(), weights.mean(0)
    close(kernel.attend_slots(queries, held, scale), expected)
    assert not held.mass_S.any(), "nobody asked what was read"
    close(kernel.attend_slots(queries, held, scale, sums=True), expected)
    torch.testing.assert_close(held.mass_S.double(), masses, atol=1e-5, rtol=1e-4)
    kernel.attend_slots(queries, held, scale, sums=True)
    torch.testing.assert_close(held.mass_S.double(), 2 * masses, atol=1e-5, rtol=1e-4)


@compiled
def test_a_head_that_holds_nothing_reads_nothing():
    held = stretches(torch.tensor([[0, 4]]), 32, torch.float32)
    read = kernels_for(CPU, torch.float32).attend_slots(random(1, 2, 2, 32), held, 1.0)
    assert not read[0, 0].any() and read[0, 1].isfinite().all() and read[0, 1].any()


@compiled
@each_precision
def test_pages_that_promise_most_are_chosen_by_row_and_the_first_one_always(dtype):
    kernel = kernels_for(CPU, dtype)
    halves, digests = random(3, 2, 7, 32, seed=1), random(3, 2, 40, 32, seed=2, dtype=dtype)
    full, reads = torch.tensor([33, 40, 4]), torch.tensor([6, 1, 4])
    found = kernel.best_pages(halves, digests, full, reads, 6)
    for row in range(3):
        for head in range(2):
            worth = (halves[row, head] @ digests[row, head, : full[row]].float().T).softmax(-1).amax(0)
            worth[0] = torch.inf
            best = sorted(worth.topk(int(reads[row])).indices.tolist())
            assert found[row, head].tolist() == best + [0] * (6 - len(best))
    digests[0, 0, 5] = torch.nan
    assert kernel.best_pages(halves, digests, full, reads, 6)[0, 0].tolist() == list(range(6)), "of what is no number the first ones"


@compiled
@each_precision
@pytest.mark.parametrize("tokens", [4, 16, 40])
def test_rows_attend_to_their_pages_and_to_their_open_one(dtype, tokens):
    kernel = kernels_for(CPU, dtype)
    pages, opened = random(30, 2, tokens, 64, seed=1, dtype=dtype), random(2, 3, 2, tokens, 64, seed=2, dtype=dtype)
    queries, places = random(2, 3, 3, 64, seed=3, dtype=dtype), torch.randint(30, (2, 3, 5), generator=torch.Generator().manual_seed(0))
    reads, open_tokens = torch.tensor([5, 2]), torch.tensor([1, tokens])
    found = kernel.attend_pages(queries, pages, places, reads, opened, open_tokens, 0.2)
    for row in range(2):
        for head in range(3):
            own = pages[places[row, head, : reads[row]]].transpose(0, 1).flatten(1, 2)
            keys, values = torch.cat([own, opened[row, head, :, : open_tokens[row]]], 1).double()
            close(found[row, head], (0.2 * queries[row, head].double() @ keys.T).softmax(-1) @ values)


def test_slots_of_another_precision_than_kernels_read_are_refused():
    held = stretches(torch.tensor([[3]]), 32, torch.float32)
    for changed in ({"values_SD": held.values_SD.bfloat16()}, {"mass_S": held.mass_S.bfloat16()}, {"count_BH": held.count_BH.int()}):
        with pytest.raises(TypeError, match="kernels read keys and values alike"):
            replace(held, **changed)
