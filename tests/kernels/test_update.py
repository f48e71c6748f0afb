"""The kernels of an update against torch's plain operations in float64, values and slopes."""

import pytest
import torch
import torch.nn.functional as F

from etude.kernels.update import Trees, kernels_for

CPU = torch.device("cpu")
TOLERANCE = {torch.float32: {"atol": 5e-6, "rtol": 2e-5}, torch.bfloat16: {"atol": 0.03, "rtol": 0.03}}

pytestmark = pytest.mark.skipif(not kernels_for(CPU, torch.float32), reason="there is no C++ compiler")
each_precision = pytest.mark.parametrize("dtype", TOLERANCE)


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found, expected, dtype):
    torch.testing.assert_close(found.double(), expected.double(), **TOLERANCE[dtype])


def wanted(function, slope, *inputs):
    """The function's value in float64, and the slopes of its inputs."""
    inputs = [part.double().requires_grad_() for part in inputs]
    value = function(*inputs)
    return value.detach(), torch.autograd.grad((value * slope.double()).sum(), inputs)


@each_precision
@pytest.mark.parametrize(("tokens", "width"), [(1, 16), (7, 48), (130, 576)])
@pytest.mark.parametrize("has_residual", [False, True])
def test_a_norm_and_its_slopes(dtype, tokens, width, has_residual):
    kernels, x, weight, slope = kernels_for(CPU, dtype), 3 * random(tokens, width), random(width, seed=1), random(tokens, width, seed=2)
    residual = random(tokens, width, seed=3) if has_residual else None
    slope = slope.to(dtype)
    value, (x_slope, weight_slope) = wanted(lambda x, w: F.rms_norm(x, (width,), w, 0.1), slope, x, weight)
    found, inverse = kernels.norm(x, weight, 0.1)
    assert found.dtype == dtype
    close(found, value, dtype)
    found_x, found_weight = kernels.norm_backward(slope, x, inverse, weight, residual)
    close(found_x, x_slope + (residual if has_residual else 0), torch.float32)
    torch.testing.assert_close(found_weight.double(), weight_slope, atol=2e-5, rtol=2e-5)
    assert all(torch.equal(found_weight, kernels.norm_backward(slope, x, inverse, weight, residual)[1]) for _ in range(5))


@each_precision
def test_a_gate_and_its_slopes(dtype):
    kernels, both, slope = kernels_for(CPU, dtype), 4 * random(37, 2 * 48, dtype=dtype), random(37, 48, seed=1, dtype=dtype)
    both[0, :3] = torch.tensor([90.0, -90.0, 0.0])
    value, (both_slope,) = wanted(lambda both: F.silu(both[:, :48]) * both[:, 48:], slope, both)
    close(kernels.gated(both), value, dtype)
    again, found = kernels.gated_backward(both, slope)
    assert torch.equal(again, kernels.gated(both))
    close(found, both_slope, dtype)


@each_precision
@pytest.mark.parametrize("width", [16, 48, 64])  # halves of 8 and 24 are no whole vectors
def test_positions_turn_and_turn_back(dtype, width):
    kernels, states = kernels_for(CPU, dtype), random(21, 5, width, dtype=dtype)
    angles = torch.rand(21, width // 2, generator=torch.Generator().manual_seed(1)) * 6
    cos, sin = (torch.cat([part, part], -1) for part in (angles.cos(), angles.sin()))
    expected, turned = states.double(), states.clone()
    first, second = expected.chunk(2, -1)
    expected = expected * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]
    kernels.rotate(turned, 3, cos, sin)
    close(turned[:, :3], expected[:, :3], dtype)
    assert torch.equal(turned[:, 3:], states[:, 3:])
    kernels.rotate(turned, 3, cos, sin, back=True)
    close(turned, states, dtype)


BRANCHES = {
    "one token": [[1]],
    "plain rows": [[5] * 5, [70] * 70, [1]],
    "a prompt and its samples": [[100] * 40 + [60] * 20 + [61] + [100] * 39],
    "branches of branches, over several blocks": [
        [200] * 33 + [120] * 10 + [80] * 37 + [120] * 40 + [121] + [200] * 79,
        [64] * 32 + [64] * 32,
    ],
}
"""Where the branch of each token ends, row by row."""


def trees_of(rows):
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row))
    return Trees(torch.tensor(starts), torch.tensor([start + end for start, row in zip(starts, rows, strict=False) for end in row]))


def attention(states, trees, heads, scale):
    """Every query over what it sees, one at a time."""
    share = 2 * heads // (states.shape[1] - heads)
    queries, keys, values = states.split((heads, (states.shape[1] - heads) // 2, (states.shape[1] - heads) // 2), dim=1)
    read = []
    for start, end in zip(trees.starts.tolist(), trees.starts.tolist()[1:], strict=False):
        for query in range(start, end):
            seen = [key for key in range(start, query + 1) if trees.ends_N[key] > query]
            mine = [states[seen].repeat_interleave(share, dim=1) for states in (keys, values)]
            read.append(torch.einsum("ht,thd->hd", (scale * torch.einsum("hd,thd->ht", queries[query], mine[0])).softmax(-1), mine[1]))
    return torch.stack(read)


@each_precision
@pytest.mark.parametrize("branches", BRANCHES)
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(9, 3, 64), (2, 2, 16), (5, 1, 80)])
def test_attention_within_trees_and_its_slopes(dtype, branches, heads, kv_heads, width):
    kernels, trees, scale = kernels_for(CPU, dtype), trees_of(BRANCHES[branches]), 1.3 * width**-0.5
    states = random(len(trees.ends_N), heads + 2 * kv_heads, width, dtype=dtype)
    slope = random(len(states), heads, width, seed=1, dtype=dtype)
    value, (states_slope,) = wanted(lambda states: attention(states, trees, heads, scale), slope, states)
    read, normaliser = kernels.attend(states, trees, heads, scale)
    close(read, value, dtype)
    found = kernels.attend_backward(states, trees, scale, read, normaliser, slope)
    close(found, states_slope, dtype)


@each_precision
@pytest.mark.parametrize("vocabulary", [5, 16, 1000, 9001])
@pytest.mark.parametrize("temperatures", [[1.0], [0.6], [0.6, 1.0, 1.5]])
def test_log_probs_of_chosen_tokens_their_entropy_and_slopes(dtype, vocabulary, temperatures):
    kernels, logits = kernels_for(CPU, dtype), 4 * random(6, vocabulary, dtype=dtype)
    logits[0, 0] = -torch.inf
    targets, slope = torch.tensor([1, 0, vocabulary - 1, 2, 3, 3]), random(6, seed=1)
    temperatures_M = torch.tensor(temperatures, dtype=torch.float64).repeat(6 // len(temperatures))
    its = temperatures_M.float()[:, None]

    def chosen(logits):
        return (logits / its).log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    value, (logits_slope,) = wanted(chosen, slope, logits)
    logprobs, entropies, normalisers = kernels.chosen(logits, targets, temperatures_M)
    shares = (logits.double() / its).softmax(-1)
    torch.testing.assert_close(logprobs.double(), value, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropies.double(), torch.special.entr(shares).sum(-1), atol=1e-5, rtol=1e-5)
    for its_entropy in (None, (entropies, torch.zeros(6)), (entropies, random(6, seed=2))):
        own = logits.clone()
        kernels.chosen_backward(own, targets, temperatures_M, normalisers, slope, its_entropy)
        logprobs = shares.log().clamp(min=-88)
        more = 0 if its_entropy is None else its_entropy[1][:, None] * shares * (logprobs + entropies[:, None]) / its
        close(own, (logits_slope - more).to(logits_slope.dtype), dtype)
