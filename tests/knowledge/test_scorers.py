import numpy as np
import pytest

from etude.knowledge.scorers import FITTED, LinearScorer, RandomScorer, make_vectorizer, threshold_at_recall

DOMAIN = [f"the heart pumps blood number {number} through the artery and the vein" for number in range(40)]
OTHER = [f"the ship sailed over the sea on day {number} with its captain and the crew" for number in range(40)]
NEW = ["blood leaves the heart by an artery", "the captain of the ship saw the sea"]


@pytest.mark.parametrize("method", FITTED)
def test_a_fitted_scorer_tells_the_domain_from_the_rest_of_the_corpus(method):
    scorer = FITTED[method](DOMAIN, [*OTHER, *DOMAIN[:4]], 0)
    heart, ship = scorer(NEW)
    assert heart > ship
    assert min(scorer(DOMAIN)) > max(scorer(OTHER))


@pytest.mark.parametrize("method", FITTED)
def test_a_saved_scorer_and_one_that_is_fitted_again_give_the_same_scores(method, tmp_path):
    scorer = FITTED[method](DOMAIN, OTHER, 3)
    assert np.array_equal(FITTED[method](DOMAIN, OTHER, 3)(NEW), scorer(NEW))
    scorer.threshold = threshold_at_recall(scorer, DOMAIN, 0.9)
    scorer.save(tmp_path / "scorer.safetensors")
    assert threshold_at_recall(lambda texts: np.arange(101.0), ["x"] * 101, 0.95) == pytest.approx(5)
    again = LinearScorer.load(tmp_path / "scorer.safetensors")
    assert np.array_equal(again([*NEW, *DOMAIN]), scorer([*NEW, *DOMAIN])) and again.threshold == scorer.threshold


def test_importance_is_the_mean_log_ratio_of_smoothed_shares():
    """By hand: features are the three of "a b", each with its own column; counted once more than seen, over 10,000 columns."""
    scorer = FITTED["importance"](["a b", "a b"], ["a c"], 0)
    domain, corpus = 10_000 + 6, 10_000 + 3
    a = np.log(3 / domain) - np.log(2 / corpus)
    b = ab = np.log(3 / domain) - np.log(1 / corpus)
    assert make_vectorizer("importance", None)(["a b"]).nnz == 3
    assert scorer(["a b"])[0] == pytest.approx((a + b + ab) / 3, rel=1e-5)


def test_a_text_said_twice_scores_about_as_once():
    scorer = FITTED["importance"](DOMAIN, OTHER, 0)
    once, twice = scorer([DOMAIN[0], f"{DOMAIN[0]} {DOMAIN[0]}"])
    assert twice == pytest.approx(once, rel=0.1)


def test_random_numbers_belong_to_a_text_and_a_seed():
    texts = [str(number) for number in range(200)]
    one = RandomScorer(0)(texts)
    assert np.array_equal(one[::-1], RandomScorer(0)(texts[::-1])) and not np.array_equal(one, RandomScorer(1)(texts))
    assert one.min() >= 0 and one.max() < 1 and 0.4 < one.mean() < 0.6
