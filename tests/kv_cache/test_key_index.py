"""KeyIndex of keys: two bits along each main direction, from which products with queries are told nearly."""

import math

import numpy as np
import pytest
import torch

from etude.kernels.decoding import kernels_for
from etude.kernels.tables import SKETCHED
from etude.kv_cache.key_index import KeyIndex, codes_of, encoded, principal_directions


def varied(heads=2, tokens=320, width=32, seed=0):
    """Keys that vary more in some directions than in others, as keys do, about a mean."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(heads, width, width, generator=draw) / math.sqrt(width) * 0.8 ** torch.arange(width)[:, None]
    return torch.randn(heads, tokens, width, generator=draw) @ mixed * 4 + torch.randn(heads, 1, width, generator=draw)


def test_a_code_is_the_place_along_a_direction_in_whole_steps_from_the_mean():
    directions = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [0.0, 0.5], [0.0, 0.0]]])  # a step is 2 of the first channel, 0.5 of the third
    mean = torch.tensor([[1.0, 0.0]])  # 2 and 0 of them
    first = [-9.0, -0.1, 0.1, 1.9, 2.1, 3.9, 4.1, 99.0]
    keys = torch.zeros(1, SKETCHED, 4)
    keys[0, :8, 0], keys[0, :8, 2] = torch.tensor(first), torch.tensor([-0.6, -0.4, -0.1, 0.1, 0.4, 0.6, 9.0, -9.0])
    codes = codes_in(encoded(keys, directions, mean))[0]
    assert codes[:8].tolist() == [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3], [3, 0]]
    assert codes[8:].tolist() == [[1, 2]] * 8, "a mean key's neighbours: the first channel a step below, the third on the border"


def test_main_directions_are_those_of_the_largest_variance_in_steps_of_it():
    keys = varied()
    directions, mean = principal_directions(keys)
    assert directions.shape == (2, 32, 16)
    for head in range(2):
        centred = keys[head] - keys[head].mean(0)
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        for x in range(16):
            own, step = directions[head, :, x], 0.9957 * variance[16 + x].sqrt()
            assert float(own.norm()) == pytest.approx(float(step), rel=1e-3)
            assert float((own / own.norm() @ vectors[:, 16 + x]).abs()) == pytest.approx(1, abs=1e-3)
            assert float(mean[head, x]) == pytest.approx(float(keys[head].mean(0) @ own / step**2), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_told_of_a_product_is_nearly_it_but_for_what_all_keys_share(dtype):
    keys = varied().to(dtype)
    known = filled(keys)
    queries = torch.randn(1, 2, 3, 32, generator=torch.Generator().manual_seed(1))
    rows = np.array([0])
    told = known.promised(rows, known.asked(rows, queries), 20)[0].double()
    exact = (queries[0] @ keys.float().mT).double()
    for head in range(2):
        for query in range(3):
            both = torch.stack([told[head, query], exact[head, query]])
            assert float(torch.corrcoef(both)[0, 1]) > 0.93
            spread = (both[0] - both[1]).std()
            assert spread < 0.4 * both[1].std(), "it is a product, not only in its order"


def test_few_keys_or_equal_ones_or_none_that_are_numbers_have_sketches_too():
    few, equal, none = varied(tokens=SKETCHED), torch.ones(2, SKETCHED, 32), torch.full((2, SKETCHED, 32), math.nan)
    for keys, number in ((few, 15), (equal, 0), (none, 0)):
        for is_cast in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
                directions, mean = principal_directions(keys)
                codes = codes_in(encoded(keys, directions, mean))
            assert (directions != 0).any(1).sum(1).tolist() == [number] * 2, "as many as keys can vary in"
            assert number or codes.unique().tolist() == [2], "where nothing is known all keys are alike"


def codes_in(words):
    """Of all keys, one behind the other, [H, T, X]."""
    return torch.stack([codes_of(words, key) for key in range(SKETCHED)], 2).flatten(1, 2)


def filled(keys_HTD):
    """As a layer fills them, at once."""
    pages = keys_HTD.unflatten(1, (-1, SKETCHED))
    known = KeyIndex(keys_HTD[None])
    known.known_BHPX = torch.zeros(1, len(keys_HTD), pages.shape[1] + 3, keys_HTD.shape[2] // 2, dtype=torch.int32)
    known.put([0] * pages.shape[1], list(range(pages.shape[1])), pages.transpose(0, 1), lambda row, count: pages[:, :count])
    return known


def test_directions_are_found_anew_when_a_row_has_twice_as_many_keys():
    pages = varied(tokens=SKETCHED * 8).unflatten(1, (-1, SKETCHED))
    known = KeyIndex(pages.flatten(1, 2)[None].expand(2, -1, -1, -1))
    known.known_BHPX = torch.zeros(2, 2, 8, 16, dtype=torch.int32)
    found = []
    for at in range(8):
        known.put([1], [at], pages[None, :, at], lambda row, count: pages[:, :count])
        found.append(known.directions_BHDX[1].clone())
    changed = [at + 1 for at in range(1, 8) if not torch.equal(found[at], found[at - 1])]
    assert changed == [2, 4, 8]
    expected = filled(pages.flatten(1, 2))
    assert torch.equal(known.known_BHPX[1], expected.known_BHPX[0, :, :8]), "all keys have their sketches in the last ones"
    assert not known.known_BHPX[0].any() and not known.directions_BHDX[0].any(), "other rows have nothing to do with it"


@pytest.mark.parametrize("left", [0, 1, 3, 5, 7, 9])
def test_what_is_known_is_what_it_was_when_pages_are_taken_back(left):
    pages = varied(tokens=SKETCHED * 9).unflatten(1, (-1, SKETCHED))
    past = lambda row, count: pages[:, :count]  # noqa: E731
    known, earlier = (KeyIndex(pages.flatten(1, 2)[None]) for _ in range(2))
    for each, end in ((known, 9), (earlier, left)):
        each.known_BHPX = torch.zeros(1, 2, 12, 16, dtype=torch.int32)
        if end >= 3:
            each.put([0] * 3, [0, 1, 2], pages[:, :3].transpose(0, 1), past)
        for at in range(3 if end >= 3 else 0, end):
            each.put([0], [at], pages[None, :, at], past)
    known.take_back(0, left, past)
    if left != 1:  # the first three came together, so that one alone never had directions
        assert torch.equal(known.known_BHPX[..., :left, :], earlier.known_BHPX[..., :left, :])
    for each in (known, earlier):
        each.put([0] * 3, [left, left + 1, left + 2], pages[:, :3].transpose(0, 1), lambda row, count: pages.repeat(1, 2, 1, 1)[:, :count])
    assert torch.equal(known.directions_BHDX, earlier.directions_BHDX)


def test_rows_that_come_of_one_go_on_apart():
    known = filled(varied())
    other = known.of([0, 0])
    assert torch.equal(other.known_BHPX[0], other.known_BHPX[1]) and torch.equal(other.directions_BHDX[1], known.directions_BHDX[0])
    page = varied(seed=3).unflatten(1, (-1, SKETCHED))[None, :, 0]
    other.put([1], [20], page, lambda row, count: torch.zeros(0))
    assert other.known_BHPX[1, :, 20].any() and not other.known_BHPX[0, :, 20].any() and not known.known_BHPX[0, :, 20].any()
    many = page[0].unflatten(1, (1, -1)).expand(-1, 40, -1, -1)
    other.known_BHPX = torch.nn.functional.pad(other.known_BHPX, (0, 0, 0, 20))
    other.put([0], [39], page, lambda row, count: many)
    is_same = [torch.equal(directions, known.directions_BHDX[0]) for directions in other.directions_BHDX]
    assert is_same == [False, True], "twice as many pages of one row are nothing to the other"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernel_chooses_the_tokens_that_are_told_most(dtype):
    kernels = kernels_for(torch.device("cpu"), dtype)
    if kernels is None:
        pytest.skip("no kernels here")
    rows, (full, reads) = [0, 1], ([20, 13], [40, 17])
    layers = [filled(varied(seed=seed, tokens=SKETCHED * count).to(dtype)) for seed, count in enumerate(full)]
    queries = torch.randn(2, 2, 3, 32, generator=torch.Generator().manual_seed(1))
    asked = torch.cat([layer.asked(np.array([0]), queries[row : row + 1]) for row, layer in zip(rows, layers, strict=True)])
    known = torch.zeros(2, 2, 23, 16, dtype=torch.int32)
    for row, layer in enumerate(layers):
        known[row, :, : full[row]] = layer.known_BHPX[0, :, : full[row]]
    found = kernels.best_pages(asked, known, torch.tensor(full), torch.tensor(reads), 40)
    for row, layer in enumerate(layers):
        worth = layer.promised(np.array([0]), asked[row : row + 1], full[row])[0].softmax(-1).amax(1)
        worth[:, 0] = torch.inf
        for head in range(2):
            expected = worth[head].topk(reads[row]).indices.sort().values
            assert found[row, head, : reads[row]].tolist() == expected.tolist()
            assert not found[row, head, reads[row] :].any()
