import random

import pytest

from etude.knowledge.duplicates import NearDuplicateIndex, bands
from etude.tasks.overlap import ngrams

WORDS = [f"word{number}" for number in range(400)]


def changed(words, share, seed=0):
    """The words with a share of them replaced."""
    draw = random.Random(seed)
    return [f"other{place}" if draw.random() < share else word for place, word in enumerate(words)]


def jaccard(one, other):
    a, b = ngrams(one, 5), ngrams(other, 5)
    return len(a & b) / len(a | b)


def test_texts_above_the_similarity_threshold_are_left_out():
    near, far = changed(WORDS, 0.01), changed(WORDS, 0.15)
    assert jaccard(WORDS, near) > 0.85 and jaccard(WORDS, far) < 0.4
    seen = NearDuplicateIndex(0.8)
    seen.add(0, WORDS)
    assert seen.add(1, near) == 0
    assert seen.add(2, far) is seen.add(3, WORDS[::-1]) is None


@pytest.mark.parametrize(("similarity", "share"), [(0.5, 0.08), (0.8, 0.022), (0.9, 0.01)])
def test_almost_all_pairs_at_the_threshold_are_found_and_none_below(similarity, share):
    seen, pairs = NearDuplicateIndex(similarity), []
    for number in range(100):
        words = [f"word{random.Random(number).random()}-{place}" for place in range(300)]
        other = changed(words, share, number)
        assert seen.add(number, words) is None
        pairs.append((jaccard(words, other), seen.add(1000 + number, other)))
    at = [found is not None for true, found in pairs if similarity <= true < similarity + 0.05]
    below = [found for true, found in pairs if true < similarity]
    assert len(at) > 20 and sum(at) >= 0.9 * len(at)
    assert len(below) > 20 and not any(found is not None for found in below)


def test_bands_name_nearly_every_pair_at_any_threshold():
    for similarity in (0.05, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99):
        count, rows = bands(similarity)
        assert count >= 2 and count * rows <= 128 and 1 - (1 - similarity**rows) ** count >= 0.95


def test_at_similarity_1_two_more_words_or_others_make_a_new_text_and_the_same_ones_none():
    for seed in range(20):
        words = random.Random(seed).sample(WORDS, 200)
        seen = NearDuplicateIndex(1.0)
        seen.add(0, words)
        assert seen.add(1, [*words, "again", "."]) is seen.add(2, changed(words, 0.02)) is None
        assert seen.add(3, words) == 0
