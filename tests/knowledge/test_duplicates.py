import random

from etude.knowledge.duplicates import Seen
from etude.tasks.overlap import pieces

WORDS = [f"word{number}" for number in range(400)]


def changed(words, share, seed=0):
    """The words with a share of them replaced."""
    draw = random.Random(seed)
    return [f"other{place}" if draw.random() < share else word for place, word in enumerate(words)]


def jaccard(one, other):
    a, b = pieces(one, 5), pieces(other, 5)
    return len(a & b) / len(a | b)


def test_a_copy_is_found_and_another_text_is_taken():
    seen = Seen(0.8)
    assert seen.admit("a", WORDS) is None
    assert seen.admit("b", WORDS) == "a"
    assert seen.admit("c", WORDS[::-1]) is None


def test_what_is_similar_beyond_the_threshold_is_left_out_and_what_is_less_is_taken():
    near, far = changed(WORDS, 0.01), changed(WORDS, 0.15)
    assert jaccard(WORDS, near) > 0.85 and jaccard(WORDS, far) < 0.4
    seen = Seen(0.8)
    seen.admit("a", WORDS)
    assert seen.admit("near", near) == "a"
    assert seen.admit("far", far) is None


def test_at_similarity_one_only_copies_are_left_out():
    seen = Seen(1.0)
    seen.admit("a", WORDS)
    assert seen.admit("near", changed(WORDS, 0.01)) is None
    assert seen.admit("copy", WORDS) == "a"


def test_the_estimate_agrees_with_counting_on_most_of_fifty_pairs():
    agreed = 0
    for seed in range(50):
        other = changed(WORDS, 0.04 * random.Random(seed).random(), seed)
        seen = Seen(0.8)
        seen.admit("a", WORDS)
        agreed += (seen.admit("b", other) == "a") == (jaccard(WORDS, other) >= 0.8)
    assert agreed >= 42
