"""Attention over shared prompts against plain softmax attention over everything that a row has behind it."""

import pytest
import torch

from etude.engine.attention import RowLayout, attend_causal, attend_own, attend_prompts, is_available, merge_attention

pytestmark = pytest.mark.skipif(not is_available(torch.device("cpu")), reason="this build of torch has no flash attention for CPUs")

HEADS, KV_HEADS, WIDTH, SCALE = 6, 2, 8, 0.4


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def plain(query_HD, keys_KTD, values_KTD):
    """One query over its keys, head by head."""
    read = []
    for head, query in enumerate(query_HD):
        group = head // (HEADS // KV_HEADS)
        weights = (SCALE * keys_KTD[group] @ query).softmax(0)
        read.append(weights @ values_KTD[group])
    return torch.stack(read)


def test_prompts_one_behind_another_are_each_causal_for_themselves():
    lengths = [3, 1, 4]
    queries, keys, values = random(8, HEADS, WIDTH), random(8, KV_HEADS, WIDTH, seed=1), random(8, KV_HEADS, WIDTH, seed=2)
    found = attend_causal(queries, keys, values, lengths, SCALE)
    start = 0
    for length in lengths:
        for place in range(start, start + length):
            seen = slice(start, place + 1)
            expected = plain(queries[place], keys[seen].transpose(0, 1), values[seen].transpose(0, 1))
            torch.testing.assert_close(found[place], expected)
        start += length


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("prompt_B", [[0, 0, 1, 1], [0, 0, 0, 1, 2, 2], [1, 2], [0]])
def test_attention_over_prompt_and_own_tokens_joined_equals_attention_over_both(prompt_B, dtype):
    rows, lengths, own = len(prompt_B), [5, 3, 4], 2
    queries = random(rows, HEADS, WIDTH)
    prompt_keys, prompt_values = random(3, KV_HEADS, 5, WIDTH, seed=1), random(3, KV_HEADS, 5, WIDTH, seed=2)
    own_keys, own_values = random(rows, KV_HEADS, own, WIDTH, seed=3), random(rows, KV_HEADS, own, WIDTH, seed=4)
    bias = torch.stack([torch.arange(5) < 5 - length for length in lengths]).to(torch.float64) * -1e9  # padding on the left
    given = [x.to(dtype) for x in (queries, own_keys, own_values, prompt_keys, prompt_values, bias[:, None, None])]
    shared = attend_prompts(given[0], given[3], given[4], given[5], RowLayout.of(torch.tensor(prompt_B), 3), SCALE)
    found = merge_attention(attend_own(*given[:3], None, SCALE), shared)
    for row, prompt in enumerate(prompt_B):
        start = 5 - lengths[prompt]
        keys = torch.cat([prompt_keys[prompt][:, start:], own_keys[row]], dim=1)
        values = torch.cat([prompt_values[prompt][:, start:], own_values[row]], dim=1)
        tolerance = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
        torch.testing.assert_close(found[row].double(), plain(queries[row], keys, values), atol=tolerance, rtol=tolerance)


def test_a_query_does_not_see_padding():
    queries, keys, values = random(2, HEADS, WIDTH), random(2, KV_HEADS, 6, WIDTH, seed=1), random(2, KV_HEADS, 6, WIDTH, seed=2)
    bias = torch.zeros(2, 1, 1, 6, dtype=torch.float64)
    bias[1, ..., :4] = -torch.inf
    read, normaliser = attend_own(queries, keys, values, bias, SCALE)
    torch.testing.assert_close(read[0], plain(queries[0], keys[0], values[0]))
    torch.testing.assert_close(read[1], plain(queries[1], keys[1][:, 4:], values[1][:, 4:]))
    scores = SCALE * keys[1, 0, 4:] @ queries[1, 0]
    torch.testing.assert_close(normaliser[1, 0].double(), scores.logsumexp(0), atol=1e-6, rtol=1e-6)


def test_rows_stand_by_their_prompts_with_places_to_spare():
    full = RowLayout.of(torch.tensor([0, 0, 1, 1]), 2)
    assert full.row_Q is None and full.place_B.tolist() == [0, 1, 2, 3]
    uneven = RowLayout.of(torch.tensor([0, 2, 2, 2]), 3)
    assert uneven.place_B.tolist() == [0, 6, 7, 8]
    assert uneven.row_Q.tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 3]
