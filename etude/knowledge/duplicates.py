"""Near-duplicates: texts that share most of their wording, found without comparing all with all.

    J = shared pieces of five words / different pieces of both texts      (Jaccard)

MinHash estimates J by the share of equal minima of 128 random hashes (Broder 1997), with a standard error of 0.04 at most; banding finds
those above a threshold with few comparisons (Leskovec et al., Mining of Massive Datasets, section 3.4). Both are datasketch's. What banding
finds is checked by the estimate; what it overlooks is rare, and stays. At similarity 1 texts are compared by their words alone.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from etude.tasks.overlap import pieces

_HASHES = 128
_WORDS = 5
"""Of a piece: pages that share a paragraph have many in common, pages on one subject few."""


class Seen:
    """The texts that were taken so far."""

    def __init__(self, similarity: float) -> None:
        from datasketch import MinHashLSH

        self.similarity = similarity
        self._index = MinHashLSH(threshold=min(similarity, 0.95), num_perm=_HASHES)
        self._sketches: dict[int, Any] = {}
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
        sketch = _sketch(words)
        near = [other for other in self._index.query(sketch) if self._sketches[other].jaccard(sketch) >= self.similarity]
        if near:
            del self._exact[exact]
            return min(near)
        self._index.insert(key, sketch)
        self._sketches[key] = sketch
        return None


def _sketch(words: Sequence[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_HASHES, seed=1)
    sketch.update_batch([" ".join(piece).encode() for piece in pieces(words, _WORDS)])
    return sketch
