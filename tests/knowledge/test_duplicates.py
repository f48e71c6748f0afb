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
    assert seen.admit(0, WORDS) is None
    assert seen.admit(1, WORDS) == 0
    assert seen.admit(2, WORDS[::-1]) is None


def test_what_is_similar_beyond_the_threshold_is_left_out_and_what_is_less_is_taken():
    near, far = changed(WORDS, 0.01), changed(WORDS, 0.15)
    assert jaccard(WORDS, near) > 0.85 and jaccard(WORDS, far) < 0.4
    seen = Seen(0.8)
    seen.admit(0, WORDS)
    assert seen.admit(1, near) == 0
    assert seen.admit(2, far) is None


def test_at_similarity_one_only_the_same_words_are_left_out():
    seen = Seen(1.0)
    seen.admit(0, WORDS)
    assert seen.admit(1, changed(WORDS, 0.01)) is None
    assert seen.admit(2, WORDS) == 0


def test_the_estimate_agrees_with_counting_on_most_of_fifty_pairs():
    agreed = 0
    for seed in range(50):
        other = changed(WORDS, 0.04 * random.Random(seed).random(), seed)
        seen = Seen(0.8)
        seen.admit(0, WORDS)
        agreed += (seen.admit(1, other) == 0) == (jaccard(WORDS, other) >= 0.8)
    assert agreed >= 42


def test_at_similarity_one_two_words_more_are_another_text():
    for seed in range(20):
        words = random.Random(seed).sample(WORDS, 200)
        seen = Seen(1.0)
        seen.admit(0, words)
        assert seen.admit(1, [*words, "again", "."]) is None
