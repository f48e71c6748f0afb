"""Domain scorers by method: score how much a text belongs to the domain. A higher score is more in-domain.

    classifier   a linear classifier of hashed words and word pairs; the score is the log-odds of "domain" (TRAIT and DeepSeekMath select
                 with fastText, whose features these are; fastText is no longer maintained, so scikit-learn fits them)
    importance   the mean over a text's hashed n-grams of log p(n-gram | domain) - log p(n-gram | corpus): the importance weight of DSIR
                 (Xie et al. 2023, arXiv 2302.03169), which sums them and resamples by the sum; here the best are taken at any length
    perplexity   minus the nats per token under a language model: a likely text scores high (CCNet, Wenzek et al. 2020, with a model of
                 the domain)
    random       a random number for each text: the control
    all          0 for every text: the corpus is the domain

The first two are fitted against a corpus that contains some in-domain text. So texts that a fit on the other half of the corpus classifies
as in-domain are excluded from the fit (as in two-step methods of learning from positive and unlabelled texts; Bekker & Davis 2020). The
threshold is not log-odds of 0: held-out examples set it.

A fitted scorer consists only of numbers, so that other processes can read it from a file.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from etude.randomness import seed_for

_FEATURES = {"classifier": 2**20, "importance": 10_000}
"""Number of hash buckets of n-grams: enough for few collisions, and DSIR's own number."""
_NORM = {"classifier": "l2", "importance": "l1"}
"""Norm of a row: l2, so that long texts do not get more extreme scores; l1, so that a score is a mean."""


class Scorer(Protocol):
    """Scores how much each text belongs to the domain."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return one float32 score for each text."""


class LinearScorer:
    """A linear scorer: a weight for every hashed word and pair of words, and a constant."""

    def __init__(self, method: str, weights: np.ndarray, constant: float) -> None:
        self.method, self.weights, self.constant = method, weights, constant
        self.threshold = -np.inf
        """Texts with a lower score are not in-domain."""
        self._hashed = make_vectorizer(method, _NORM[method])

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return (self._hashed(texts) @ self.weights + self.constant).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the weights, the constant and the threshold to a safetensors file."""
        facts = {"method": self.method, "constant": repr(self.constant), "least": repr(float(self.threshold))}
        save_file({"weights": self.weights}, path, metadata=facts)

    @classmethod
    def load(cls, path: Path) -> "LinearScorer":
        """Read a scorer that `save` wrote."""
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata()
            scorer = cls(facts["method"], file.get_tensor("weights"), float(facts["constant"]))
        scorer.threshold = float(facts["least"])
        return scorer


def fit(method: str, domain: Sequence[str], held_out: Sequence[str], corpus: Sequence[str], found: float, seed: int) -> LinearScorer:
    """Fit the scorer of a method in `FITTED`, with the threshold reached by a share `found` of the held-out examples."""
    others: list[str] = []
    for half, other_half in ((corpus[::2], corpus[1::2]), (corpus[1::2], corpus[::2])):
        first = FITTED[method](domain, other_half, seed)
        is_domain = first(half) >= threshold_at_recall(first, held_out, found)
        others += [text for text, is_one in zip(half, is_domain, strict=True) if not is_one]
    scorer = FITTED[method](domain, others or corpus, seed)
    scorer.threshold = threshold_at_recall(scorer, held_out, found)
    return scorer


def threshold_at_recall(scorer: Scorer, held_out: Sequence[str], found: float) -> float:
    """Return the score reached by a share `found` of the held-out examples."""
    return float(np.quantile(scorer(held_out), 1 - found))


def make_vectorizer(method: str, norm: str | None) -> Callable[[Sequence[str]], Any]:
    """Return a function from texts to sparse rows of hashed words and word pairs: counts, or rows of norm 1."""
    from sklearn.feature_extraction.text import HashingVectorizer

    options: dict[str, Any] = {"ngram_range": (1, 2), "alternate_sign": False, "token_pattern": r"\w+|[^\w\s]", "dtype": np.float32}
    return HashingVectorizer(n_features=_FEATURES[method], norm=norm, **options).transform  # type: ignore[no-any-return]


def fit_classifier(domain: Sequence[str], corpus: Sequence[str], seed: int) -> LinearScorer:
    """Fit a logistic regression by stochastic gradient descent, averaged over ten passes, with equal total weight of both classes."""
    from sklearn.linear_model import SGDClassifier

    options: dict[str, Any] = {"loss": "log_loss", "alpha": 1e-6, "max_iter": 10, "tol": None, "random_state": seed % 2**32}
    linear = SGDClassifier(average=True, class_weight="balanced", **options)
    linear.fit(make_vectorizer("classifier", _NORM["classifier"])([*domain, *corpus]), [1] * len(domain) + [0] * len(corpus))
    return LinearScorer("classifier", linear.coef_[0].astype(np.float32), float(linear.intercept_[0]))


def fit_importance(domain: Sequence[str], corpus: Sequence[str], seed: int) -> LinearScorer:
    """Fit the weights log p(feature | domain) - log p(feature | corpus), with add-one smoothing."""

    def log_shares(texts: Sequence[str]) -> np.ndarray:
        counts = np.asarray(make_vectorizer("importance", None)(texts).sum(axis=0), dtype=np.float64).ravel() + 1
        return np.log(counts / counts.sum())

    return LinearScorer("importance", (log_shares(domain) - log_shares(corpus)).astype(np.float32), 0.0)


class RandomScorer:
    """A scorer whose scores are random numbers that depend only on the text: the control."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([seed_for(self.seed, "random selection", text) / 2**64 for text in texts], dtype=np.float32)


class ConstantScorer:
    """A scorer that gives every text 0."""

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros(len(texts), dtype=np.float32)


FITTED: Mapping[str, Callable[[Sequence[str], Sequence[str], int], LinearScorer]] = {
    "classifier": fit_classifier,
    "importance": fit_importance,
}
METHODS = (*FITTED, "perplexity", "random", "all")
