"""Near-duplicates: texts that share most of their wording, found without comparing all with all.

    J = shared pieces of five words / different pieces of both texts      (Jaccard)

Banding of 128 MinHashes (Broder 1997) names the texts that may be near, and their pieces are counted: what is left out has this J, but for
collisions of 32-bit hashes. With b bands of r hashes a pair is named with probability 1 - (1 - J^r)^b (Leskovec et al., Mining of Massive
Datasets, section 3.4.2); r is the largest number at which that is at least 0.95 for a pair at the threshold, as a pair that is named in
vain costs a count, and one that is not named stays. Sketches and banding are datasketch's. At similarity 1 texts are compared by their
words alone.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from etude.tasks.overlap import pieces

_HASHES = 128
_WORDS = 5
"""Of a piece: pages that share a paragraph have many in common, pages on one subject few."""
_FOUND = 0.95
"""Of pairs at the threshold, what banding names at least."""


class Seen:
    """The texts that were taken so far."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHashLSH

        self.similarity = similarity
        self._index = MinHashLSH(num_perm=_HASHES, params=bands(similarity))
        self._pieces: dict[int, np.ndarray] = {}
        """Of each text, the hashes of its pieces, ascending."""
        self._exact: dict[bytes, int] = {}

    def admit(self, key: int, words: Sequence[str]) -> int | None:
        """The key of a text that was taken and has this wording; where there is none, None, and this one is taken under its key, which no
        other text may have.
        """
        exact = hashlib.blake2b(" ".join(words).encode(), digest_size=16).digest()
        if (same := self._exact.setdefault(exact, key)) != key:
            return same
        if self.similarity == 1:
            return None
        sketch, own = _sketch(words)
        near = [other for other in self._index.query(sketch) if _jaccard(self._pieces[other], own) >= self.similarity]
        if near:
            del self._exact[exact]
            return min(near)
        self._index.insert(key, sketch)
        self._pieces[key] = own
        return None


def bands(similarity: float) -> tuple[int, int]:
    """Number of bands, of at least two, and of hashes in each.

    >>> bands(0.8)
    (18, 7)
    """
    options = ((_HASHES // rows, rows) for rows in range(_HASHES // 2, 0, -1))
    return next((count, rows) for count, rows in options if 1 - (1 - similarity**rows) ** count >= _FOUND or rows == 1)


def _sketch(words: Sequence[str]) -> tuple[Any, np.ndarray]:
    """What banding goes by, and the hashes of all pieces."""
    from datasketch import MinHash
    from datasketch.hashfunc import sha1_hash32

    hashes = [sha1_hash32(" ".join(piece).encode()) for piece in pieces(words, _WORDS)]
    sketch = MinHash(num_perm=_HASHES, seed=1, hashfunc=int)
    sketch.update_batch(hashes)
    return sketch, np.unique(np.array(hashes, dtype=np.uint32))


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
