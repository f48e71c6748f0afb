"""Near-duplicates: texts that share most of their wording, found without comparing all with all.

    J = shared pieces of five words / different pieces of both texts      (Jaccard)

MinHash estimates J by the share of equal minima of 128 random hashes (Broder 1997), with a standard error of 0.04 at most; banding finds
those above a threshold with few comparisons (Leskovec et al., Mining of Massive Datasets, section 3.4). Both are datasketch's. What banding
finds is checked by the estimate, so that nothing is left out below `similarity`; what it overlooks is rare, and stays.
"""

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
        self._sketches: dict[str, Any] = {}

    def admit(self, origin: str, words: Sequence[str]) -> str | None:
        """The origin of a text that was taken and has this wording; where there is none, None, and this one is taken."""
        sketch = _sketch(words)
        near = [name for name in self._index.query(sketch) if self._sketches[name].jaccard(sketch) >= self.similarity]
        if near:
            return min(near)
        self._index.insert(origin, sketch)
        self._sketches[origin] = sketch
        return None


def _sketch(words: Sequence[str]) -> Any:
    from datasketch import MinHash

    sketch = MinHash(num_perm=_HASHES, seed=1)
    sketch.update_batch([" ".join(piece).encode() for piece in pieces(words, _WORDS)])
    return sketch
