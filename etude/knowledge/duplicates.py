"""Finds near-duplicates, texts that share most of their wording, without comparing all pairs.

    J = shared word 5-grams / different word 5-grams of both texts      (Jaccard)

MinHash LSH with 128 hashes (Broder 1997) proposes candidate pairs, whose n-grams are then counted. So J of a removed text is exact, except
for collisions of 32-bit hashes. With b bands of r hashes a pair becomes a candidate with probability 1 - (1 - J^r)^b (Leskovec et al.,
Mining of Massive Datasets, section 3.4.2). r is the largest number for which this is at least 0.95 for a pair at the threshold: a false
candidate costs a count, a missed pair stays in the data. MinHash and LSH are datasketch's. At similarity 1 only texts with the same words
are duplicates.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.tasks.overlap import ngrams

_HASHES = 128
_WORDS = 5
"""Length of the n-grams: pages with a common paragraph share many, pages on one subject few."""
_FOUND = 0.95
"""Minimum probability that a pair at the threshold becomes a candidate."""


class NearDuplicateIndex:
    """An index of earlier texts, which finds near-duplicates of a new one."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHashLSH

        self.similarity = similarity
        self._index = MinHashLSH(num_perm=_HASHES, params=bands(similarity))
        self._pieces: dict[int, np.ndarray] = {}
        """Hashes of the n-grams of each text, ascending."""
        self._exact: dict[bytes, int] = {}

    def add(self, key: int, words: Sequence[str]) -> int | None:
        """Return the key of an earlier text with nearly the same wording, or None after adding this text under its key.

        Every key must be new.
        """
        exact = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
        if (same := self._exact.setdefault(exact, key)) != key:
            return same
        if self.similarity == 1:
            return None
        sketch, hashes = _sketch(words)
        near = [other for other in self._index.query(sketch) if _jaccard(self._pieces[other], hashes) >= self.similarity]
        if near:
            del self._exact[exact]
            return min(near)
        self._index.insert(key, sketch)
        self._pieces[key] = hashes
        return None


def bands(similarity: float) -> tuple[int, int]:
    """Return the number of bands (at least two) and the number of hashes in each.

    >>> bands(0.8)
    (18, 7)
    """
    options = ((_HASHES // rows, rows) for rows in range(_HASHES // 2, 0, -1))
    return next((count, rows) for count, rows in options if 1 - (1 - similarity**rows) ** count >= _FOUND or rows == 1)


def _sketch(words: Sequence[str]) -> tuple[Any, np.ndarray]:
    """Compute the MinHash of a text, and the sorted hashes of its n-grams."""
    from datasketch import MinHash
    from datasketch.hashfunc import sha1_hash32

    hashes = [sha1_hash32(" ".join(piece).encode()) for piece in ngrams(words, _WORDS)]
    sketch = MinHash(num_perm=_HASHES, seed=1, hashfunc=int)
    sketch.update_batch(hashes)
    return sketch, np.unique(np.array(hashes, dtype=np.uint32))


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
